"""One engine and several who want it: each gets its own right outputs, or a refusal in words."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.models import VOCAB, assert_no_block_lost, drain, make_engine, make_llm, tiny_model
from torch import Tensor

from tinyllm import LLM
from tinyllm.engine.async_engine import AsyncEngine
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import Runner
from tinyllm.engine.request import OutputDelta, RequestOutput
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.errors import EngineBusyError, EngineStoppedError, GenerationError, PartError
from tinyllm.sampling_params import SamplingParams

MODEL = tiny_model()
PARAMS = SamplingParams(max_tokens=12, temperature=1.0, seed=3)
LONG = SamplingParams(max_tokens=150, temperature=1.0, seed=3)
EVERYTHING = torch.ones(VOCAB, dtype=torch.bool)


@pytest.fixture
def llm() -> LLM:
    return make_llm(MODEL)


def tokens(outputs: Sequence[RequestOutput]) -> list[tuple[int, ...]]:
    return [output.outputs[0].token_ids for output in outputs]


def alone(prompt: Sequence[int], params: SamplingParams = PARAMS) -> tuple[int, ...]:
    engine = make_engine(MODEL)
    engine.add_request(prompt, params, "a")
    return drain(engine)["a"][0]


async def collect(engine: AsyncEngine, prompt: Sequence[int], params: SamplingParams = PARAMS) -> tuple[int, ...]:
    return tuple([token async for delta in engine.generate(prompt, params) for token in delta.token_ids])


class Paused(Runner):
    """Stops before a step of the engine until the test says `go`; `reached` says that it has come so far."""

    def __init__(self, engine: LLMEngine, before_step: int = 2) -> None:
        self.runner = engine.runner
        self.before_step = before_step
        self.reached, self.go = threading.Event(), threading.Event()
        engine.runner = self

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        self.before_step -= 1
        if self.before_step == 0:
            self.reached.set()
            assert self.go.wait(60), "the test never said go"
        return self.runner.execute(scheduled)


def test_calls_of_several_threads_give_each_its_own(llm: LLM) -> None:
    prompts = [[[i, j] for j in range(1 + i % 3)] for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda many: tokens(llm.generate(many, PARAMS)), prompts))
    assert results == [[alone(prompt) for prompt in many] for many in prompts]
    assert_no_block_lost(llm.engine)


def test_stepping_by_hand_waits_for_a_call_and_loses_nothing(llm: LLM) -> None:
    llm.engine.add_request([1], SamplingParams(max_tokens=2), "mine")
    paused = Paused(llm.engine)
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(llm.generate, [[2], [3]], PARAMS)
        assert paused.reached.wait(60)
        by_hand = pool.submit(llm.engine.step)
        paused.go.set()
        assert tokens(call.result(60)) == [alone([2]), alone([3])]
        assert [output.request_id for output in by_hand.result(60)] == ["mine"]
    assert not llm.engine.has_unfinished


def test_nobody_comes_between_a_step_and_what_it_hands_out(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it would hand out what the other's call has just finished, and that one would look for it in vain."""
    fetch = llm.engine.outbox.fetch
    free: list[bool] = []

    def fetch_slowly() -> list[RequestOutput]:
        def knock() -> None:
            with llm.engine.guard.call_if_free() as is_free:
                free.append(is_free)

        other = threading.Thread(target=knock)
        other.start()
        other.join()
        return fetch()

    monkeypatch.setattr(llm.engine.outbox, "fetch", fetch_slowly)
    llm.engine.add_request([1], SamplingParams(max_tokens=1), "a")
    assert len(llm.engine.step()) == 1
    assert free == [False]


def test_what_a_call_finishes_for_others_waits_for_them(llm: LLM) -> None:
    llm.engine.add_request([1], SamplingParams(max_tokens=2), "mine")
    assert tokens(llm.generate([[2]], PARAMS)) == [alone([2])]
    assert not llm.engine.scheduler.has_unfinished
    assert llm.engine.has_unfinished, "there is something to hand out"
    assert tokens(llm.generate([[3]], PARAMS)) == [alone([3])]
    assert [output.request_id for output in llm.engine.step()] == ["mine"]
    assert not llm.engine.has_unfinished


async def refuse_all_beside_an_async_engine(llm: LLM) -> None:
    engine = AsyncEngine(llm.engine)
    stream = asyncio.create_task(collect(engine, [1, 2]))
    for call in (
        lambda: llm.generate([[1]]),
        lambda: llm.engine.step(),
        lambda: llm.engine.add_request([1]),
        lambda: llm.engine.drop("a"),
        lambda: AsyncEngine(llm.engine),
    ):
        with pytest.raises(EngineBusyError, match=r"AsyncEngine until its shutdown\(\)"):
            call()
    assert await stream == alone([1, 2])
    await engine.shutdown()


def test_an_async_engine_has_the_engine_until_its_shutdown(llm: LLM) -> None:
    asyncio.run(refuse_all_beside_an_async_engine(llm))
    assert tokens(llm.generate([[1]], PARAMS)) == [alone([1])]
    assert_no_block_lost(llm.engine)


def test_an_async_engine_does_not_wait_for_a_call(llm: LLM) -> None:
    paused = Paused(llm.engine)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(llm.generate, [[2]], PARAMS)
        assert paused.reached.wait(60)
        with pytest.raises(EngineBusyError, match="in use"):
            AsyncEngine(llm.engine)
        paused.go.set()
        assert tokens(call.result(60)) == [alone([2])]


def test_an_async_engine_leaves_others_requests_theirs(llm: LLM) -> None:
    heard: list[OutputDelta] = []
    llm.engine.add_request([5], PARAMS, "mine", heard.append)

    async def main() -> tuple[int, ...]:
        async with AsyncEngine(llm.engine) as engine:
            result = await collect(engine, [1, 2], LONG)
            await collect(engine, [1])
            return result

    assert asyncio.run(main()) == alone([1, 2], LONG)
    (mine,) = llm.engine.step()
    assert (mine.request_id, tokens([mine])) == ("mine", [alone([5])])
    assert len(heard) == PARAMS.max_tokens


@pytest.mark.parametrize("what", ["generate", "step", "add_request", "AsyncEngine"])
@pytest.mark.parametrize("where", ["on_delta", "allowed_tokens"])
def test_a_function_that_a_step_calls_may_not_use_the_engine(llm: LLM, what: str, where: str) -> None:
    calls: dict[str, Callable[[], object]] = {
        "generate": lambda: llm.generate([[1]]),
        "step": llm.engine.step,
        "add_request": lambda: llm.engine.add_request([1]),
        "AsyncEngine": lambda: AsyncEngine(llm.engine),
    }
    refusals: list[str] = []

    def misuse(_: object) -> Tensor:
        with pytest.raises(EngineBusyError) as refusal:
            calls[what]()
        refusals.append(str(refusal.value))
        return EVERYTHING

    if where == "on_delta":
        llm.engine.add_request([1], PARAMS, "a", misuse)
    else:
        llm.engine.add_request([1], SamplingParams(max_tokens=12, temperature=1.0, seed=3, allowed_tokens=misuse), "a")
    assert drain(llm.engine)["a"] == (alone([1]),)
    assert len(refusals) == 12
    assert ("in use" if what == "AsyncEngine" else "in the middle of a step") in refusals[0]


# ---------------------------------------------------------------- abort


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("before_step", [1, 3])
def test_abort_from_elsewhere_ends_a_request_of_a_call(llm: LLM, n: int, before_step: int) -> None:
    paused = Paused(llm.engine, before_step)
    params = [SamplingParams(max_tokens=150, temperature=1.0, seed=3, n=n), PARAMS]
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(llm.generate, [[2], [3]], params)
        assert paused.reached.wait(60)
        (name,) = [r.group_id for r in llm.engine.scheduler.running if r.token_ids[0] == 2 and r.index == 0]
        llm.engine.abort(name)
        paused.go.set()
        ended, other = call.result(60)
    assert [output.finish_reason for output in ended.outputs] == ["abort"] * n
    assert ended.outputs[0].token_ids == alone([2], LONG)[:before_step]
    assert ended.text == " ".join(map(str, ended.outputs[0].token_ids))
    assert tokens([other]) == [alone([3])]
    assert_no_block_lost(llm.engine)


def test_abort_before_a_request_began_tells_of_all_its_continuations() -> None:
    engine = make_engine(MODEL, max_num_seqs=1)
    heard: list[OutputDelta] = []
    engine.add_request([1], PARAMS, "first", lambda delta: engine.abort("second"))
    engine.add_request([2], SamplingParams(n=3), "second", heard.append)
    (second,) = engine.step()
    assert [(o.index, o.token_ids, o.finish_reason) for o in second.outputs] == [(i, (), "abort") for i in range(3)]
    assert [(delta.index, delta.finish_reason) for delta in heard] == [(i, "abort") for i in range(3)]
    engine.abort("first")
    assert not engine.has_unfinished
    assert_no_block_lost(engine)


@pytest.mark.parametrize("where", ["on_delta", "allowed_tokens"])
def test_a_function_of_a_request_may_abort_it(where: str) -> None:
    engine = make_engine(MODEL)
    heard: list[OutputDelta] = []

    def give_up(_: object) -> Tensor:
        if len(heard) == 2:
            engine.abort("a")
        return EVERYTHING

    def listen(delta: OutputDelta) -> None:
        heard.append(delta)
        if where == "on_delta":
            give_up(delta)

    params = SamplingParams(max_tokens=150, allowed_tokens=give_up if where == "allowed_tokens" else None)
    engine.add_request([1], params, "a", listen)
    engine.add_request([2], PARAMS, "b")
    outputs = {}
    while engine.has_unfinished:
        outputs |= {output.request_id: output.outputs[0] for output in engine.step()}
    assert outputs["a"].finish_reason == heard[-1].finish_reason == "abort"
    assert len(outputs["a"].token_ids) == len(heard) - 1 == (2 if where == "on_delta" else 3)
    assert outputs["b"].token_ids == alone([2])
    assert_no_block_lost(engine)


def test_abort_from_elsewhere_ends_a_stream(llm: LLM) -> None:
    async def main() -> tuple[list[OutputDelta], tuple[int, ...]]:
        async with AsyncEngine(llm.engine) as engine:
            other = asyncio.create_task(collect(engine, [2]))
            deltas = []
            async for delta in engine.generate([1], LONG):
                deltas.append(delta)
                llm.engine.abort(delta.request_id)
            return deltas, await other

    deltas, other = asyncio.run(main())
    assert deltas[-1].finish_reason == "abort"
    assert 2 <= len(deltas) < LONG.max_tokens
    assert other == alone([2])
    assert_no_block_lost(llm.engine)


def test_a_scheduler_that_loses_a_request_is_an_error_and_no_endless_loop(llm: LLM) -> None:
    llm.engine.scheduler.add = lambda request: None  # type: ignore[method-assign]
    with pytest.raises(PartError, match="the Scheduler has lost 1 of 1 requests"):
        llm.generate([[1]])


# ---------------------------------------------------------------- listeners, and whatever kills a thread


def raising(error: BaseException) -> Callable[[object], Tensor]:
    def listen(_: object) -> Tensor:
        raise error

    return listen


def test_a_listener_that_raises_costs_nobody_anything() -> None:
    engine = make_engine(MODEL)
    before: list[OutputDelta] = []
    after: list[OutputDelta] = []
    one = SamplingParams(max_tokens=1)
    engine.add_request([1], one, "before", before.append)
    engine.add_request([2], one, "bad", raising(asyncio.CancelledError()))
    engine.add_request([3], one, "after", after.append)
    with pytest.raises(asyncio.CancelledError):
        engine.step()
    assert (len(before), len(after)) == (1, 1)
    assert engine.has_unfinished
    assert [output.request_id for output in engine.step()] == ["before", "bad", "after"]
    assert not engine.has_unfinished


def test_two_listeners_that_raise_are_both_heard() -> None:
    engine = make_engine(MODEL)
    engine.add_request([1], PARAMS, "a", raising(BrokenPipeError("a")))
    engine.add_request([2], PARAMS, "b", raising(KeyError("b")))
    with pytest.raises(ExceptionGroup, match="several listeners") as group:
        engine.step()
    assert [type(error) for error in group.value.exceptions] == [BrokenPipeError, KeyError]


def test_a_listener_of_somebody_else_does_not_disturb_a_call(llm: LLM) -> None:
    llm.engine.add_request([1], SamplingParams(max_tokens=1), "mine", raising(BrokenPipeError()))
    assert tokens(llm.generate([[2]], PARAMS)) == [alone([2])]
    with pytest.raises(BrokenPipeError):
        llm.engine.step()
    assert [output.request_id for output in llm.engine.step()] == ["mine"]


def test_an_interrupt_in_a_listener_ends_a_call_at_once(llm: LLM) -> None:
    heard: list[OutputDelta] = []
    llm.engine.add_request([1], SamplingParams(max_tokens=1), "mine", raising(KeyboardInterrupt()))
    llm.engine.add_request([1], SamplingParams(max_tokens=1), "later", heard.append)
    with pytest.raises(KeyboardInterrupt):
        llm.generate([[2]], PARAMS)
    assert not llm.engine.scheduler.has_unfinished
    assert [output.request_id for output in llm.engine.step()] == ["mine", "later"]
    assert len(heard) == 1


def test_an_interrupt_in_a_request_s_function_ends_a_call(llm: LLM) -> None:
    with pytest.raises(KeyboardInterrupt):
        llm.generate([[1], [2]], [PARAMS, SamplingParams(allowed_tokens=raising(KeyboardInterrupt()))])
    assert not llm.engine.has_unfinished
    assert_no_block_lost(llm.engine)


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr
)
def test_whatever_a_request_s_function_raises_is_its_own_affair(llm: LLM, error: BaseException) -> None:
    async def main() -> list[object]:
        async with AsyncEngine(llm.engine) as engine:
            bad = collect(engine, [1], SamplingParams(allowed_tokens=raising(error)))
            return await asyncio.gather(bad, collect(engine, [2]), return_exceptions=True)

    failed, good = asyncio.run(main())
    assert isinstance(failed, GenerationError)
    assert f"allowed_tokens failed: {type(error).__name__}" in str(failed)
    assert good == alone([2])


class Dies(Runner):
    """Brings down the thread that steps."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        raise self.error


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), KeyboardInterrupt()], ids=repr)
def test_streams_end_whatever_kills_the_thread(llm: LLM, error: BaseException) -> None:
    runner, llm.engine.runner = llm.engine.runner, Dies(error)

    async def main() -> list[object]:
        async with AsyncEngine(llm.engine) as engine:
            return await asyncio.gather(*(collect(engine, [i]) for i in range(3)), return_exceptions=True)

    for failed in asyncio.run(main()):
        assert isinstance(failed, EngineStoppedError)
        assert type(error).__name__ in str(failed)
    llm.engine.runner = runner
    assert tokens(llm.generate([[1]], PARAMS)) == [alone([1])], "the engine is free again"
    assert_no_block_lost(llm.engine)


@pytest.mark.parametrize(
    ("prompt", "params"), [([1], {"temperature": 1}), ([1], {}), ({1: 2}, None), (b"1 2", None), ([], None)], ids=str
)
def test_a_stream_that_was_refused_leaves_nothing_behind(llm: LLM, prompt: object, params: object) -> None:
    async def main() -> None:
        async with AsyncEngine(llm.engine) as engine:
            with pytest.raises(ValueError, match=r"prompt|sampling parameters"):
                await collect(engine, prompt, params)  # type: ignore[arg-type]
            assert not engine._streams
            assert not engine._request_ids

    asyncio.run(main())
    assert not llm.engine._groups


def test_a_name_that_is_taken_twice_leaves_the_first_alone(llm: LLM) -> None:
    llm.engine.add_request([1], PARAMS, "a")
    with pytest.raises(ValueError, match="already here"):
        llm.engine.add_request([2], PARAMS, "a")
    assert drain(llm.engine) == {"a": (alone([1]),)}
