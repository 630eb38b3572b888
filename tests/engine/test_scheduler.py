"""The scheduler's promises, one by one: order, seats, chunks, preemption, drafts, and a step that breaks off."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.models import VOCAB, assert_no_block_lost, dense_greedy, drain, make_engine, tiny_model
from torch import Tensor

from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import Runner
from tinyllm.engine.sampler import sample
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.sampling_params import SamplingParams

MODEL = tiny_model()
TWELVE = SamplingParams(max_tokens=12)
FOUR_SAMPLES = SamplingParams(max_tokens=4, n=4, temperature=1.0, seed=0)


def names(engine: LLMEngine) -> list[str]:
    """All requests in the order in which they are served."""
    return [request.request_id for request in (*engine.scheduler.running, *engine.scheduler.waiting)]


def random_prompts(count: int, longest: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(VOCAB) for _ in range(rng.randint(1, longest))] for _ in range(count)]


# ------------------------------------------------------------ order and seats


def test_continuations_are_served_in_their_prompt_s_place() -> None:
    engine = make_engine(MODEL)
    for name in ("a", "b"):
        engine.add_request([1, 2, 3], FOUR_SAMPLES, name)
    engine.add_request([1, 2], TWELVE, "c")
    engine.step()
    assert names(engine) == ["a.0", "a.1", "a.2", "a.3", "b.0", "b.1", "b.2", "b.3", "c.0"]


def test_continuations_that_are_still_to_come_have_their_seats() -> None:
    """The long prompt takes several steps before it is forked: nobody may sit down in its seats until then."""
    engine = make_engine(MODEL, max_num_seqs=4, max_num_batched_tokens=8)
    engine.add_request(list(range(20)), FOUR_SAMPLES, "a")
    engine.add_request([1], TWELVE, "b")
    while engine.has_unfinished:
        engine.step()
        assert len(engine.scheduler.running) <= 4


# ------------------------------------------------------------ chunks and preemption


@pytest.mark.parametrize("budget", [1, 7, 39, 40])
def test_a_prompt_alone_is_computed_in_chunks_until_it_is_done(budget: int) -> None:
    prompt = list(range(40))
    engine = make_engine(MODEL, max_num_batched_tokens=budget)
    engine.add_request(prompt, TWELVE, "a")
    assert drain(engine)["a"][0] == tuple(dense_greedy(MODEL, prompt, 12)[0])
    assert sum(r.num_prefill_tokens + r.num_decode_tokens for r in engine.step_records) == 40 + 11


@pytest.mark.parametrize("block_size", [1, 2, 4])
def test_a_preempted_request_that_finds_its_own_blocks_again_stays_within_its_table(block_size: int) -> None:
    """Its counts start over at what the cache still has: stale ones would give it slots beyond its tokens."""
    prompts = {"a": list(range(8)), "b": list(range(50, 66))}
    engine = make_engine(MODEL, block_size=block_size, num_blocks=40 // block_size)
    for name, prompt in prompts.items():
        engine.add_request(prompt, TWELVE, name)
    outputs = {}
    while engine.has_unfinished:
        outputs |= {output.request_id: output.outputs[0].token_ids for output in engine.step()}
        for request in engine.scheduler.running:
            assert engine.kv.table(request.request_id).num_tokens == request.num_computed_tokens
    records = engine.step_records
    first = next(i for i, record in enumerate(records) if record.num_preempted)
    assert sum(record.num_prefix_tokens_hit for record in records[first:]) > 0
    assert outputs == {name: tuple(dense_greedy(MODEL, prompt, 12)[0]) for name, prompt in prompts.items()}


# ------------------------------------------------------------ drafts


class Watched(Runner):
    """Counts the drafts that are computed, and holds every step to its budget."""

    def __init__(self, engine: LLMEngine) -> None:
        self.engine = engine
        self.runner = engine.runner
        self.num_drafts = 0
        engine.runner = self

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        assert sum(item.num_tokens for item in scheduled) <= self.engine.config.max_num_batched_tokens
        self.num_drafts += sum(item.num_draft_tokens for item in scheduled)
        return self.runner.execute(scheduled)


@pytest.mark.parametrize("block_size", [1, 4, 16])
@pytest.mark.parametrize("budget", [3, 64])
def test_drafts_that_are_not_accepted_leave_no_trace(block_size: int, budget: int) -> None:
    """Wrong guesses in every step, in a pool that preempts and evicts: the same tokens, then and when seen again."""
    prompts = random_prompts(12, longest=30)
    expected = [tuple(dense_greedy(MODEL, prompt, 12)[0]) for prompt in prompts]
    engine = make_engine(MODEL, block_size=block_size, num_blocks=80 // block_size, max_num_batched_tokens=budget)
    watched = Watched(engine)
    rng = random.Random(budget)
    for _ in range(2):
        for number, prompt in enumerate(prompts):
            engine.add_request(prompt, TWELVE, str(number))
        outputs = {}
        while engine.has_unfinished:
            for request in engine.scheduler.running:
                request.draft_token_ids = [rng.randrange(VOCAB) for _ in range(rng.randint(0, 6))]
            outputs |= {output.request_id: output.outputs[0].token_ids for output in engine.step()}
        assert [outputs[str(number)] for number in range(len(prompts))] == expected
    assert watched.num_drafts > 10
    assert sum(record.num_preempted for record in engine.step_records) > 0 or budget == 3
    assert_no_block_lost(engine)


@pytest.mark.parametrize("num_right", [1, 2, 5])
def test_drafts_that_are_accepted_need_no_computing_again(num_right: int) -> None:
    """A proposer's part played by hand: it knows the true output, and proposes it with a wrong end."""
    prompt = list(range(10))
    truth = dense_greedy(MODEL, prompt, 24)[0]
    engine = make_engine(MODEL)
    engine.add_request(prompt, SamplingParams(max_tokens=24), "a")
    outputs = list(engine.step())
    (request,) = engine.scheduler.running
    while not outputs:
        told = request.num_output_tokens
        right = truth[told : told + num_right]
        request.draft_token_ids = [*right, (truth[-1] + 1) % VOCAB]
        outputs = engine.step()
    assert outputs[0].outputs[0].token_ids == tuple(truth)
    assert len(engine.step_records) <= 3 + -(-22 // num_right)


def test_drafts_take_only_what_known_tokens_leave() -> None:
    """Of a budget of 16 the three running requests need 3 and the new prompt 8; the guesses get 5, in order."""
    engine = make_engine(MODEL, max_num_batched_tokens=16)
    for name in ("a", "b", "c"):
        engine.add_request([1, 2, 3], TWELVE, name)
    engine.step()
    engine.add_request(list(range(8)), TWELVE, "d")
    for request in engine.scheduler.running:
        request.draft_token_ids = [7, 8, 9]
    scheduled = engine.scheduler.schedule().scheduled
    assert [(item.num_known_tokens, item.num_draft_tokens) for item in scheduled] == [(1, 3), (1, 2), (1, 0), (8, 0)]
    assert [len(item.slots) for item in scheduled] == [4, 3, 1, 8]


def test_nobody_is_preempted_for_a_draft() -> None:
    engine = make_engine(MODEL, num_blocks=3)
    for name in ("a", "b"):
        engine.add_request([1, 2, 3], TWELVE, name)
    engine.step()
    for request in engine.scheduler.running:
        request.draft_token_ids = [7, 8, 9, 10]
    plan = engine.scheduler.schedule()
    assert ([item.num_draft_tokens for item in plan.scheduled], plan.preempted) == ([4, 0], [])


def test_a_prompt_s_drafts_are_not_handed_on_to_its_continuations() -> None:
    engine = make_engine(MODEL)
    engine.add_request([1, 2, 3], FOUR_SAMPLES, "a")
    expected = drain(engine)["a"]
    engine.add_request([1, 2, 3], FOUR_SAMPLES, "a")
    engine.scheduler.waiting[0].draft_token_ids = [4, 5, 6, 7, 8]
    assert drain(engine)["a"] == expected


def test_truncate_gives_up_whole_blocks_and_leaves_other_owners_theirs() -> None:
    kv = make_engine(MODEL, num_blocks=16).kv
    tokens = list(range(14))
    assert kv.start("a", tokens) == 0
    kv.append("a", 14)
    kv.cache_blocks("a", tokens[:6])
    kv.fork("a", "b")
    shared = list(kv.table("a").block_ids)
    kv.truncate("a", 14)
    kv.truncate("a", 99)
    assert kv.table("a").block_ids == shared
    kv.truncate("a", 6)
    assert (kv.table("a").block_ids, kv.table("a").num_tokens) == (shared[:2], 6)
    assert [kv.allocator.ref_count(block) for block in shared] == [3, 2, 1, 1]
    kv.append("a", 1)  # into a block that b reads too: it must be copied first
    assert kv.table("a").block_ids[1] not in shared
    assert kv.table("b").block_ids == shared
    kv.truncate("a", 0)
    assert kv.table("a").block_ids == []
    kv.free("b")
    assert kv.num_free == 15  # the prefix cache has the first one


# ------------------------------------------------------------ a step that breaks off


class Interrupt:
    """Does what `work` does, and loses the result of the third call, as when the user interrupts it."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work = work
        self.count = 0

    def __call__(self, *args: Any) -> Any:
        self.count += 1
        result = self.work(*args)
        if self.count == 3:
            raise KeyboardInterrupt
        return result


@pytest.mark.parametrize("where", ["model", "sampler"])
@pytest.mark.parametrize("budget", [16, 64])
def test_requests_go_on_rightly_after_a_step_that_broke_off(
    budget: int, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = random_prompts(6, longest=20, seed=3)
    expected = {str(i): (tuple(dense_greedy(MODEL, prompt, 12)[0]),) for i, prompt in enumerate(prompts)}
    engine = make_engine(MODEL, max_num_batched_tokens=budget)
    if where == "model":
        monkeypatch.setattr(engine.runner, "execute", Interrupt(engine.runner.execute))
    else:
        monkeypatch.setattr("tinyllm.engine.speculation.sample", Interrupt(sample))
    for number, prompt in enumerate(prompts):
        engine.add_request(prompt, TWELVE, str(number))
    engine.step()
    engine.step()
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    assert drain(engine) == expected
    assert_no_block_lost(engine)


def test_metrics_say_when_a_request_was_first_scheduled_and_what_it_found_then() -> None:
    """With one seat the second waits for the first to end; by then the first one's blocks are in the prefix cache."""
    engine = make_engine(MODEL, max_num_seqs=1)
    for name in ("a", "b"):
        engine.add_request(list(range(9)), TWELVE, name)
    metrics = {}
    while engine.has_unfinished:
        metrics |= {output.request_id: output.outputs[0].metrics for output in engine.step()}
    a, b = metrics["a"], metrics["b"]
    assert a.arrival < b.arrival < a.first_scheduled < a.token_times[0]
    assert a.token_times[-1] < b.first_scheduled < b.token_times[0]
    assert (a.num_prefix_tokens_hit, b.num_prefix_tokens_hit) == (0, 8)
