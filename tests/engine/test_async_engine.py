"""Streams for many callers: the tokens of the plain engine, and each caller's trouble is its own."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from support.models import VOCAB, drain, make_engine, tiny_model
from torch import Tensor

from tinyllm.engine.async_engine import AsyncEngine
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import Runner
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.errors import EngineStoppedError, GenerationError, RequestError
from tinyllm.sampling_params import SamplingParams

MODEL = tiny_model()
#: Long enough that a stream which should have ended early is noticed.
LONG = SamplingParams(max_tokens=200, temperature=1.0, seed=1)
REQUESTS = [
    ([i, *range(i % 7)], SamplingParams(max_tokens=5 + i % 9, n=1 + i % 3, temperature=0.8 * (i % 2), seed=i))
    for i in range(24)
]


async def collect(
    engine: AsyncEngine, prompt: Sequence[int], params: SamplingParams
) -> tuple[tuple[tuple[int, ...], str], ...]:
    """The tokens and the text of each continuation."""
    tokens: defaultdict[int, list[int]] = defaultdict(list)
    texts: defaultdict[int, str] = defaultdict(str)
    async for delta in engine.generate(prompt, params):
        tokens[delta.index] += delta.token_ids
        texts[delta.index] += delta.text
    return tuple((tuple(tokens[i]), texts[i]) for i in range(params.n))


def assert_idle(engine: LLMEngine) -> None:
    assert not engine.has_unfinished
    assert not engine.kv.tables


async def idle(engine: LLMEngine) -> None:
    """Wait until nothing runs, with the engine's thread still there to run it."""
    while engine.has_unfinished:
        await asyncio.sleep(0.001)


def expected() -> list[tuple[tuple[tuple[int, ...], str], ...]]:
    engine = make_engine(MODEL)
    for i, (prompt, params) in enumerate(REQUESTS):
        engine.add_request(prompt, params, str(i))
    outputs = drain(engine)
    return [tuple((ids, " ".join(map(str, ids))) for ids in outputs[str(i)]) for i in range(len(REQUESTS))]


@pytest.mark.parametrize("num_blocks", [256, 24], ids=["roomy", "tiny pool"])
def test_many_streams_give_the_tokens_of_the_plain_engine(num_blocks: int) -> None:
    inner = make_engine(MODEL, num_blocks=num_blocks)

    async def main() -> list[tuple[tuple[tuple[int, ...], str], ...]]:
        async with AsyncEngine(inner) as engine:
            return await asyncio.gather(*(collect(engine, prompt, params) for prompt, params in REQUESTS))

    assert asyncio.run(main()) == expected()
    assert max(record.num_running for record in inner.step_records) > 1, "they should have run together"
    assert_idle(inner)


def test_callers_in_several_event_loops_share_one_engine() -> None:
    inner = make_engine(MODEL)
    engine = AsyncEngine(inner)
    results: dict[int, object] = {}

    def caller(i: int) -> None:
        results[i] = asyncio.run(collect(engine, *REQUESTS[i]))

    threads = [threading.Thread(target=caller, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(engine.shutdown())
    assert [results[i] for i in range(4)] == expected()[:4]


class Gate(Runner):
    """Lets the first step through, and each later one when the test says so."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.passes = threading.Semaphore(1)

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        assert self.passes.acquire(timeout=60), "the test was not told of the step before"
        return self.runner.execute(scheduled)


def test_a_token_reaches_its_caller_before_the_next_step() -> None:
    inner = make_engine(MODEL)
    inner.runner = gate = Gate(inner.runner)

    async def main() -> int:
        count = 0
        async with AsyncEngine(inner) as engine:
            async for _ in engine.generate([1, 2, 3], SamplingParams(max_tokens=5)):
                count += 1
                gate.passes.release()
        return count

    assert asyncio.run(main()) == 5


@pytest.mark.parametrize("way", ["cancel", "break", "close"])
def test_who_stops_reading_gives_the_request_up(way: str) -> None:
    inner = make_engine(MODEL)

    async def read_two(engine: AsyncEngine, started: asyncio.Event) -> None:
        stream = engine.generate([1, 2, 3], replace(LONG, n=2))
        count = 0
        async for _ in stream:
            count += 1
            started.set()
            if way != "cancel" and count == 2:
                break
        if way == "close":
            await stream.aclose()

    async def main() -> object:
        async with AsyncEngine(inner) as engine:
            started = asyncio.Event()
            task = asyncio.create_task(read_two(engine, started))
            other = asyncio.create_task(collect(engine, *REQUESTS[5]))
            await started.wait()
            if way == "cancel":
                task.cancel()
            await asyncio.wait([task])
            gc.collect()  # a stream that was left by `break` ends when it is collected
            result = await other
            await idle(inner)
            return result

    assert asyncio.run(main()) == expected()[5]
    assert_idle(inner)
    assert len(inner.step_records) < LONG.max_tokens, "the request went on to its end"


def fails_third(output: Sequence[int]) -> Tensor:
    return torch.full((VOCAB,), len(output) < 2, dtype=torch.bool)


def test_an_error_reaches_its_own_caller_only() -> None:
    inner = make_engine(MODEL)
    bad = [
        ([], SamplingParams()),
        ([VOCAB], SamplingParams()),
        ([1] * 5000, SamplingParams()),
        (None, SamplingParams()),
        ([1], SamplingParams(stop_token_ids=[VOCAB])),
        ([1], SamplingParams(allowed_tokens=fails_third, n=2)),
    ]

    async def main() -> list[object]:
        async with AsyncEngine(inner) as engine:
            tasks = [collect(engine, prompt, params) for prompt, params in [*REQUESTS[:6], *bad]]  # type: ignore[list-item]
            return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(main())
    assert results[:6] == expected()[:6]
    assert [type(error) for error in results[6:]] == [RequestError] * 5 + [GenerationError]
    assert_idle(inner)


class Breaks(Runner):
    """Fails in its third step."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.count = 0

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        self.count += 1
        if self.count == 3:
            raise MemoryError("no room")
        return self.runner.execute(scheduled)


def test_an_engine_that_breaks_tells_everyone_and_takes_nobody_new() -> None:
    inner = make_engine(MODEL)
    inner.runner = Breaks(inner.runner)

    async def main() -> list[object]:
        async with AsyncEngine(inner) as engine:
            results = await asyncio.gather(*(collect(engine, [i], LONG) for i in range(3)), return_exceptions=True)
            late = await asyncio.gather(collect(engine, [1], LONG), return_exceptions=True)
            return [*results, *late]

    results = asyncio.run(main())
    for error in results:
        assert isinstance(error, EngineStoppedError)
        assert "MemoryError: no room" in str(error)
        assert isinstance(error.__cause__, MemoryError)
    assert_idle(inner)


def test_shutdown_ends_open_streams_and_leaves_the_engine_usable() -> None:
    inner = make_engine(MODEL)

    async def main() -> list[object]:
        engine = AsyncEngine(inner)
        tasks = [asyncio.create_task(collect(engine, [i], LONG)) for i in range(3)]
        while not inner.step_records:
            await asyncio.sleep(0.001)
        await engine.shutdown()
        await engine.shutdown()
        late = asyncio.create_task(collect(engine, [1], LONG))
        return await asyncio.gather(*tasks, late, return_exceptions=True)

    before = threading.active_count()
    for error in asyncio.run(main()):
        assert isinstance(error, EngineStoppedError)
        assert "shut down" in str(error)
    assert threading.active_count() == before
    assert_idle(inner)
    inner.add_request(REQUESTS[0][0], REQUESTS[0][1], "a")
    assert drain(inner)["a"] == tuple(ids for ids, _ in expected()[0])


def test_a_caller_whose_loop_is_gone_holds_nobody_up() -> None:
    inner = make_engine(MODEL)
    engine = AsyncEngine(inner)
    loop = asyncio.new_event_loop()
    stream = engine.generate([1, 2], LONG)
    loop.run_until_complete(anext(stream))
    loop.close()
    assert asyncio.run(collect(engine, *REQUESTS[3])) == expected()[3]
    asyncio.run(idle(inner))
    asyncio.run(engine.shutdown())
    assert_idle(inner)
    assert len(inner.step_records) < LONG.max_tokens
