"""20,000 engine steps of random traffic over tiny pools, with every invariant checked in every step.

There is no model: memory is a list whose slots hold the history of the token that was written there, so each request's
whole context can be read back through its block table. The tokens that a model would choose are drawn at random.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
from support.models import VOCAB, NumberTokenizer, assert_no_block_lost, tiny_model
from torch import Tensor

from tinyllm.config import CacheConfig, EngineConfig
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import Runner
from tinyllm.engine.request import OutputDelta, Request, RequestOutput
from tinyllm.engine.sampler import Sampled
from tinyllm.engine.scheduler import Scheduler, count_computed
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.engine.speculation import agreeing
from tinyllm.errors import GenerationError
from tinyllm.kv_cache.copy_on_write import CopyOnWrite
from tinyllm.kv_cache.manager import KVCacheManager
from tinyllm.parts import resolve
from tinyllm.sampling_params import SamplingParams

END = 4  # tokens 0 to 3 are words: so few that prompts often begin alike
MODEL = tiny_model(eos_token_ids=(END,))
POOL_SLOTS, MAX_NUM_SEQS, MAX_N = 96, 6, 3
STEPS = 2000


def histories(token_ids: Iterable[int]) -> list[int]:
    """For each token a number that stands for it and all before it."""
    codes, code = [], 0
    for token in token_ids:
        codes.append(code := hash((code, token)))
    return codes


class Memory:
    """Stands in for `PagedKVCache`: a slot holds the history of its token."""

    def __init__(self, num_layers: int, num_blocks: int, block_size: int, *_: object) -> None:
        self.block_size = block_size
        self.slots: list[int | None] = [None] * (num_blocks * block_size)

    def copy_block(self, source: int, target: int) -> None:
        size = self.block_size
        self.slots[target * size : (target + 1) * size] = self.slots[source * size : (source + 1) * size]


class Interrupted(Exception):
    """The step broke off in the middle of its computation."""


class Fuzz(Runner):
    """Random traffic for one engine, the runner that stands in for the model, and the checks.

    Attributes:
        arrivals: which request came when.
        open: those that have neither finished nor been aborted.
        finished: what came out, by name.
        chosen: for each request that the current step brings up to date its tokens so far, its drafts, and the token
            that the model chooses at each of its positions (None where it gives nonsense).
    """

    def __init__(self, seed: int, block_size: int, budget: int, prefix_caching: bool = True) -> None:
        self.rng = random.Random(seed)
        cache = CacheConfig(block_size, POOL_SLOTS // block_size, prefix_caching)
        config = EngineConfig(cache, budget, MAX_NUM_SEQS)
        parts = resolve({"PagedKVCache": Memory})
        self.engine = LLMEngine(MODEL, NumberTokenizer(), config, parts, runner=self)  # type: ignore[arg-type]
        self.scheduler, self.kv = self.engine.scheduler, self.engine.kv
        self.kv.cache_blocks = self.cache_blocks  # type: ignore[method-assign]
        self.roots = [self.words(40) for _ in range(3)]
        self.arrivals: dict[str, int] = {}
        self.open: dict[str, SamplingParams] = {}
        self.finished: dict[str, RequestOutput] = {}
        self.chosen: list[tuple[Request, list[int], list[int], list[int | None]]] = []
        self.seen: Counter[str] = Counter()

    def words(self, count: int) -> list[int]:
        return [self.rng.randrange(END) for _ in range(count)]

    # -------------------------------------------------------- traffic

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step(busy=True)
        steps_left = 64 * POOL_SLOTS * (1 + len(self.open))
        while self.engine.has_unfinished:
            assert (steps_left := steps_left - 1), "the engine goes round in circles"
            self.step(busy=False)
        assert not self.open, "a request was forgotten"
        assert_no_block_lost(self.engine)

    def step(self, busy: bool) -> None:
        if busy:
            if len(self.open) < 10 and self.rng.random() < 0.4:
                self.arrive()
            if self.rng.random() < 0.04:
                self.abort()
        for request in self.scheduler.running:
            if self.rng.random() < 0.3:
                room = request.params.max_tokens - request.num_output_tokens
                request.draft_token_ids = self.words(self.rng.randint(0, min(room, 5)))
        self.chosen.clear()
        try:
            outputs = self.engine.step()
        except Interrupted:
            outputs = []
        for output in outputs:
            self.check_output(output)
        self.check_state()
        for request, *what in self.chosen:
            self.check_tokens(request, *what)

    def arrive(self) -> None:
        """Most prompts begin like others; some are whole blocks, some nearly fill the pool."""
        rng, size = self.rng, self.kv.block_size
        root = rng.choice(self.roots)
        kinds = [
            root[: rng.randint(1, 40)],
            root[: rng.randint(0, 30)] + self.words(rng.randint(1, 10)),
            root[: size * rng.randint(1, 40 // size)],
            self.words(rng.randint(1, POOL_SLOTS - 1)),
        ]
        params = SamplingParams(max_tokens=rng.randint(1, 25), n=rng.choice([1, 1, 1, 2, MAX_N]))
        name = f"request {len(self.arrivals)}"
        self.arrivals[name] = len(self.arrivals)
        self.open[name] = params
        self.engine.add_request(rng.choices(kinds, [5, 5, 5, 1])[0], params, name, self.listen)

    def abort(self) -> None:
        """Any request, one that was preempted if there is one, or one that is long gone."""
        preempted = [r.group_id for r in self.scheduler.waiting if r.metrics.num_preemptions]
        waiting = [r.group_id for r in self.scheduler.waiting]
        choices = self.rng.choice([preempted, waiting, list(self.open)]) or list(self.arrivals)
        if choices:
            name = self.rng.choice(choices)
            self.seen["preempted abort"] += name in preempted
            self.engine.abort(name)
            self.open.pop(name, None)

    def listen(self, delta: OutputDelta) -> None:
        """A listener may abort too, in the middle of a step's deliveries."""
        if self.rng.random() < 0.003:
            self.abort()

    # -------------------------------------------------------- instead of the model

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        """Write and read the memory as attention would, then let a random token be the likeliest."""
        self.check_plan(scheduled)
        if self.rng.random() < 0.005:
            raise Interrupted
        memory = self.kv.storage.slots
        for item in scheduled:
            request = item.request
            codes = histories([*request.token_ids, *request.draft_token_ids])
            start = request.num_computed_tokens
            for slot, code in zip(item.slots, codes[start : start + item.num_tokens], strict=True):
                memory[slot] = code
        for item in scheduled:
            self.check_context(item)
        if self.rng.random() < 0.005:
            raise Interrupted
        rows = [row for item in scheduled if item.finishes_known_tokens for row in self.logits(item)]
        return torch.stack(rows) if rows else torch.empty(0, VOCAB)

    def logits(self, item: ScheduledRequest) -> list[Tensor]:
        rows, chosen = [], []
        for draft in [*item.draft_token_ids, None]:
            guessed_right = draft is not None and self.rng.random() < 0.7
            ends = self.rng.random() < 0.03
            token = draft if guessed_right else END if ends else self.rng.randrange(END)
            nonsense = self.rng.random() < 0.003
            rows.append(torch.zeros(VOCAB))
            rows[-1][token] = torch.nan if nonsense else 1
            chosen.append(None if nonsense else token)
        self.chosen.append((item.request, list(item.request.token_ids), item.draft_token_ids, chosen))
        return rows

    def cache_blocks(self, request_id: str, token_ids: Sequence[int]) -> None:
        """What goes into the prefix cache must be known, computed, and still in its slots: no drafts."""
        (request,) = (request for request in self.scheduler.running if request.request_id == request_id)
        assert list(token_ids) == request.token_ids[: request.num_computed_tokens], "remembered, but not computed"
        slots = self.kv.table(request_id).slots(0, len(token_ids))
        assert [self.kv.storage.slots[slot] for slot in slots] == histories(token_ids), "remembered, but overwritten"
        KVCacheManager.cache_blocks(self.kv, request_id, token_ids)

    # -------------------------------------------------------- checks

    def check_plan(self, scheduled: Sequence[ScheduledRequest]) -> None:
        """What is about to be computed: within the budget, in order, each token in a slot of its own."""
        assert sum(item.num_tokens for item in scheduled) <= self.engine.config.max_num_batched_tokens, "over budget"
        chosen = [item.request for item in scheduled]
        assert chosen == [request for request in self.scheduler.running if request in chosen], "out of order"
        slots = [slot for item in scheduled for slot in item.slots]
        assert len(set(slots)) == len(slots), "two tokens share a slot"
        planned = {item.request.request_id: item for item in scheduled}
        for request in self.scheduler.running:
            table = self.kv.table(request.request_id)
            item = planned.get(request.request_id)
            computed = request.num_computed_tokens
            stop = computed + (item.num_tokens if item else 0)
            assert table.num_tokens == stop, "a table holds more or fewer tokens than are computed"
            assert len(table.block_ids) == -(-stop // table.block_size), (
                "a table has more or fewer blocks than it needs"
            )
            if item:
                assert item.num_tokens > 0, "a zero-length query"
                assert item.slots == table.slots(computed, stop), "slots that are not those of the tokens"
                owners = {self.kv.allocator.ref_count(slot // table.block_size) for slot in item.slots}
                assert owners == {1}, "a write into a block that another owner sees"
        self.seen["drafts"] += sum(item.num_draft_tokens for item in scheduled)

    def check_context(self, item: ScheduledRequest) -> None:
        """Attention over this request's context meets its own history and nothing else."""
        request = item.request
        stop = request.num_computed_tokens + item.num_tokens
        slots = self.kv.table(request.request_id).slots(0, stop)
        expected = histories([*request.token_ids, *request.draft_token_ids][:stop])
        assert [self.kv.storage.slots[slot] for slot in slots] == expected, "a context holds another one's K and V"

    def check_state(self) -> None:
        """After a step: requests are in their places, and every block has as many references as owners."""
        running, waiting = self.scheduler.running, list(self.scheduler.waiting)
        requests = running + waiting
        order = [(self.arrivals[request.group_id], request.index) for request in requests]
        assert order == sorted(set(order)), "not in order of arrival, or in two places"
        assert {request.group_id for request in requests} == set(self.open), "a request is lost or comes back"
        assert set(self.kv.tables) == {request.request_id for request in running}, "a table without a running request"
        assert len(running) <= MAX_NUM_SEQS, "more run than there are seats"
        assert all(request.num_computed_tokens == 0 for request in waiting), "a stale count"
        assert all(0 <= r.num_computed_tokens < len(r.token_ids) for r in running), "nothing left to compute"
        lengths = [self.kv.table(request.request_id).num_tokens for request in running]
        assert lengths == [request.num_computed_tokens for request in running], (
            "a table holds more or fewer tokens than are computed"
        )
        allocator = self.kv.allocator
        owners = Counter(block for table in self.kv.tables.values() for block in table.block_ids)
        if self.kv.prefix_cache:
            owners.update(self.kv.prefix_cache.blocks.values())
        counts = [allocator.ref_count(block) for block in range(self.kv.num_blocks)]
        assert counts == [owners[block] for block in range(self.kv.num_blocks)], "a block is leaked or owned twice"
        assert sorted(allocator.free_ids) == [block for block, count in enumerate(counts) if not count]

    def check_tokens(self, request: Request, before: list[int], drafts: list[int], chosen: list[int | None]) -> None:
        """The new tokens are the model's, up to the first that is not the draft in its place or that ends all."""
        expected = list(before)
        for token, draft in zip(chosen, [*drafts, None], strict=True):
            if token is None:
                break
            expected.append(token)
            num_output = len(expected) - request.num_prompt_tokens
            full = num_output == request.params.max_tokens or len(expected) == self.engine.max_model_len
            if token == END or token != draft or full:
                break
        assert request.token_ids == expected, "other tokens than the model's"
        self.seen["accepted"] += max(0, len(expected) - len(before) - 1)

    def check_output(self, output: RequestOutput) -> None:
        name = output.request_id
        assert name not in self.finished, "a request finished twice"
        self.finished[name] = output
        params = self.open.pop(name, None)
        if params:  # it may have been aborted by a listener, with the output on its way
            assert [completion.index for completion in output.outputs] == list(range(params.n))
            assert all(len(completion.token_ids) <= params.max_tokens for completion in output.outputs)
            assert all(completion.token_ids or completion.error for completion in output.outputs)


@pytest.mark.parametrize(
    ("block_size", "budget", "prefix_caching"),
    [
        (1, 1, True),
        (1, 17, True),
        (1, 64, True),
        (4, 2, True),
        (4, 7, True),
        (4, 33, False),
        (4, 64, True),
        (16, 5, True),
        (16, 20, True),
        (16, 64, True),
    ],
)
def test_every_invariant_holds_in_every_step(block_size: int, budget: int, prefix_caching: bool) -> None:
    fuzz = Fuzz(block_size * 100 + budget, block_size, budget, prefix_caching)
    fuzz.run(STEPS)
    records = fuzz.engine.step_records
    happened = {
        "finished": len(fuzz.finished),
        "aborted": len(fuzz.arrivals) - len(fuzz.finished),
        "preempted": sum(record.num_preempted for record in records),
        "hits": sum(record.num_prefix_tokens_hit for record in records),
        "shared": sum(record.num_block_references > record.num_table_blocks for record in records),
        **fuzz.seen,
    }
    print(happened)
    assert happened["finished"] > 20
    if budget > 16:  # with less, few requests run at a time and the pool is seldom full
        missing = [what for what, count in happened.items() if not count and (prefix_caching or what != "hits")]
        assert not missing, f"the traffic was too tame: {happened}"


# ------------------------------------------------------------ planted faults


def leak(patch: pytest.MonkeyPatch) -> None:
    """A table that is closed keeps one reference to its first block."""
    free = KVCacheManager.free

    def leaking(kv: KVCacheManager, request_id: str) -> None:
        kv.allocator.share(kv.table(request_id).block_ids[0])
        free(kv, request_id)

    patch.setattr(KVCacheManager, "free", leaking)


def stale_count(patch: pytest.MonkeyPatch) -> None:
    """A preempted request keeps its count of computed tokens."""
    preempt = Scheduler.preempt_last

    def forgetting(scheduler: Scheduler) -> Request:
        count = scheduler.running[-1].num_computed_tokens
        victim = preempt(scheduler)
        victim.num_computed_tokens = count
        return victim

    patch.setattr(Scheduler, "preempt_last", forgetting)


def stale_hit(patch: pytest.MonkeyPatch) -> None:
    """A request that is admitted thinks that it must compute all, though its table begins with cached blocks."""
    start = KVCacheManager.start

    def lying(kv: KVCacheManager, request_id: str, token_ids: Sequence[int]) -> int | None:
        return None if start(kv, request_id, token_ids) is None else 0

    patch.setattr(KVCacheManager, "start", lying)


def unsorted(patch: pytest.MonkeyPatch) -> None:
    """A preempted request goes to the end of the queue."""
    preempt = Scheduler.preempt_last

    def demoting(scheduler: Scheduler) -> Request:
        victim = preempt(scheduler)
        scheduler.waiting.rotate(-1)
        return victim

    patch.setattr(Scheduler, "preempt_last", demoting)


def lost(patch: pytest.MonkeyPatch) -> None:
    """A preempted request is put nowhere."""
    preempt = Scheduler.preempt_last

    def dropping(scheduler: Scheduler) -> Request:
        preempt(scheduler)
        return scheduler.waiting.popleft()

    patch.setattr(Scheduler, "preempt_last", dropping)


def greedy_budget(patch: pytest.MonkeyPatch) -> None:
    """What running requests take is not counted when others are admitted."""
    patch.setattr(Scheduler, "budget_after", lambda scheduler, scheduled: scheduler.config.max_num_batched_tokens)


def kept_drafts(patch: pytest.MonkeyPatch) -> None:
    """The slots of rejected drafts are not taken back."""
    patch.setattr(KVCacheManager, "truncate", lambda *_: None)


def uncopied(patch: pytest.MonkeyPatch) -> None:
    """A shared block is written without a copy."""
    patch.setattr(CopyOnWrite, "needs_copy", lambda *_: False)


def rootless(patch: pytest.MonkeyPatch) -> None:
    """A block is found by its own tokens alone, whatever came before it."""
    patch.setattr(
        "tinyllm.kv_cache.prefix_cache.hash_block",
        lambda parent, tokens: bytes(tokens) + bytes([len(parent) > 0]),
    )


def remembered_early(patch: pytest.MonkeyPatch) -> None:
    """Tokens go into the prefix cache before it is counted which of them are computed."""

    def hasty(kv: KVCacheManager, item: ScheduledRequest) -> None:
        kv.cache_blocks(item.request.request_id, item.request.token_ids)
        count_computed(kv, item)

    patch.setattr("tinyllm.engine.engine.count_computed", hasty)


def trusting(patch: pytest.MonkeyPatch) -> None:
    """All drafts are accepted up to the first that is wrong, and that one too."""

    def gullible(results: Sequence[Sampled | GenerationError], drafts: Sequence[int]) -> Any:
        right = agreeing(results, drafts)
        return results[: len(right) + 1]

    patch.setattr("tinyllm.engine.speculation.agreeing", gullible)


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (leak, "leaked"),
        (stale_count, "stale count"),
        (stale_hit, "more or fewer tokens|promised room"),
        (unsorted, "order of arrival"),
        (lost, "lost"),
        (greedy_budget, "over budget"),
        (kept_drafts, "more or fewer tokens"),
        (uncopied, "another owner|share a slot"),
        (rootless, "another one's K and V"),
        (remembered_early, "remembered, but not computed"),
        (trusting, "other tokens than the model's"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_the_checks_notice_a_planted_fault(
    plant: Callable[[pytest.MonkeyPatch], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=words):
        Fuzz(seed=1, block_size=4, budget=33).run(STEPS)
