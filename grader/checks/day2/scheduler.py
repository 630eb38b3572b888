"""Checks of `Scheduler`: traffic without a model, each step held against one worked out on paper."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

from grader.checks.oracles.schedules import LETTERS, ScheduleBooks, Step
from grader.checks.support import count_of, cut
from grader.framework import Case, Exercise, Observations, Prop, short
from tinyllm.config import CacheConfig, EngineConfig, ModelConfig, SamplingParams
from tinyllm.engine.metrics import RequestMetrics
from tinyllm.engine.output_text import OutputText
from tinyllm.engine.request import Request
from tinyllm.engine.scheduler import roll_back
from tinyllm.kv_cache.manager import KVCacheManager
from tinyllm.parts import resolve

#: The smallest pool's shape: no check of a schedule looks at keys or values.
MODEL = ModelConfig(
    vocab_size=1000, hidden_size=2, intermediate_size=2, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=1
)
MAX_STEPS = 400
#: Of a case. All prompts begin with the same `shared_prefix` tokens; above 0 the prefix cache is on. `on_paper` is 0
#: where the steps cannot be worked out: what a prefix cache still has after it was full depends on the pool.
NO_LIMITS = {"budget": 100, "num_blocks": 100, "block_size": 4, "max_num_seqs": 100, "shared_prefix": 0, "on_paper": 1}

Arrival = Sequence[int]  # step, prompt tokens, output tokens, and how many continuations (1 if not given)


def traffic(arrivals: Sequence[Arrival], aborts: Sequence[tuple[int, int]] = (), **limits: int) -> Case:
    """Requests in order of arrival, over one pool.

    Args:
        aborts: step, and which request is dropped before it.
        limits: see NO_LIMITS.
    """
    return {"arrivals": [*map(list, arrivals)], "aborts": [*map(list, aborts)], **NO_LIMITS, **limits}


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Run the traffic to its end."""
    return Traffic(parts, case).run()


class Traffic:
    """An engine without a model: every token that it samples is 0."""

    def __init__(self, parts: SimpleNamespace, case: Case) -> None:
        self.case = case
        config = EngineConfig(
            CacheConfig(case["block_size"], case["num_blocks"], enable_prefix_caching=case["shared_prefix"] > 0),
            max_num_batched_tokens=case["budget"],
            max_num_seqs=case["max_num_seqs"],
        )
        self.kv = KVCacheManager(MODEL, config.cache, resolve(), torch.float32, "cpu")
        self.scheduler = parts.Scheduler(config, self.kv)
        self.open: dict[str, Request] = {}

    def run(self) -> dict[str, Any]:
        """What was seen in each step, and of the pool when all had ended or nothing moved any more."""
        steps: list[dict[str, Any]] = []
        before_this: Any = ()
        kept: list[Any] = []
        last_arrival = max(step for step, *_ in self.case["arrivals"])
        for number in range(MAX_STEPS):
            self.let_come_and_go(number)
            if not self.open and number > last_arrival:
                break
            before = self.contents()
            roll_back(self.kv, self.scheduler.running)  # so that a wrong count in one step is no other's mistake
            scheduled, preempted = self.scheduler.schedule_known_tokens()
            seen = {"changed": before != self.contents(), "kept": list(before_this) == kept}
            steps.append({**self.look(scheduled, preempted), **seen})
            before_this, kept = scheduled, list(scheduled)
            if self.open and not scheduled and not preempted and number > last_arrival:
                break
            if not all(item.num_tokens > 0 and item.request in self.scheduler.running for item in scheduled):
                break  # the engine could not go on; judge says so
            for item in list(scheduled):
                self.compute(item)
        if self.kv.prefix_cache:
            self.kv.prefix_cache.evict(self.case["num_blocks"])
        return {"steps": steps, "open": list(self.open), "num_free": self.kv.num_free}

    def contents(self) -> dict[str, list[int]]:
        """What of each open request is not the scheduler's to change."""
        return {name: [request.num_siblings_to_fork, *request.token_ids] for name, request in self.open.items()}

    def let_come_and_go(self, step: int) -> None:
        """The arrivals and aborts before a step."""
        for index, (when, num_prompt, num_output, *copies) in enumerate(self.case["arrivals"]):
            if when == step:
                shared = self.case["shared_prefix"]
                own = range(100 * index + 100, 100 * index + 200)
                prompt = [*range(1, shared + 1), *own][:num_prompt]
                request = make_request(LETTERS[index], prompt, num_output, *copies)
                self.open[request.request_id] = request
                self.scheduler.add(request)
        for when, index in self.case["aborts"]:
            request_to_drop = self.open.pop(LETTERS[index], None) if when == step else None
            if request_to_drop is not None:
                self.scheduler.finish(request_to_drop)

    def look(self, scheduled: Any, preempted: Any) -> dict[str, Any]:
        """A step before it is computed."""
        running = list(self.scheduler.running)
        return {
            "scheduled": [[item.request.request_id, item.num_tokens] for item in scheduled],
            "slots": [len(set(item.slots)) for item in scheduled],
            "preempted": [request.request_id for request in preempted],
            "running": [request.request_id for request in running],
            "waiting": [request.request_id for request in self.scheduler.waiting],
            "computed": {request.request_id: request.num_computed_tokens for request in self.open.values()},
            "in_tables": {name: table.num_tokens for name, table in self.kv.tables.items()},
        }

    def compute(self, item: Any) -> None:
        """What the engine does when the model has run."""
        request, finishes = item.request, item.finishes_known_tokens
        request.num_computed_tokens += item.num_known_tokens
        if not finishes or request.request_id not in self.open:
            return
        group = [request]
        if request.num_output_tokens == 0:
            if request.request_id in self.kv.tables:
                self.kv.cache_blocks(request.request_id, request.token_ids)
            siblings = [
                make_request(f"{request.request_id}{i}", request.token_ids, request.params.max_tokens)
                for i in range(1, request.num_siblings_to_fork + 1)
            ]
            for sibling in siblings:
                sibling.num_computed_tokens = request.num_computed_tokens
                self.open[sibling.request_id] = sibling
            request.num_siblings_to_fork = 0
            self.scheduler.fork(request, siblings)
            group += siblings
        for member in group:
            member.token_ids.append(0)
            if member.num_output_tokens >= member.params.max_tokens:
                del self.open[member.request_id]
                self.scheduler.finish(member)


def make_request(name: str, prompt: Sequence[int], num_output: int, copies: int = 1) -> Request:
    """A request as the engine's InputProcessor makes it."""
    params, metrics = SamplingParams(max_tokens=num_output), RequestMetrics(arrival=0.0)
    request = Request(name, name, 0, list(prompt), len(prompt), params, metrics, OutputText(str))
    request.num_siblings_to_fork = copies - 1
    return request


def in_words(scheduled: Any, preempted: Any) -> str:
    """A step in few words."""
    shares = ", ".join(f"{name}: {count_of(number, 'token')}" for name, number in scheduled) or "nothing"
    return shares + (f"; preempted {', '.join(sorted(preempted))}" if preempted else "")


def step_problem(expected: Step, seen: Any) -> str | None:
    """How one step differs from the one on paper."""
    wanted = in_words(expected.scheduled, expected.preempted)
    got = in_words(seen["scheduled"], seen["preempted"])
    if wanted != got:
        return f"expected {wanted}; got {got}"
    for name, names in (("running", expected.running), ("waiting", expected.waiting)):
        if seen[name] != names:
            return f"{name} should then be [{', '.join(names)}], it is [{', '.join(map(str, seen[name]))}]"
    return tables_problem(seen)


def tables_problem(seen: Any) -> str | None:
    """What is wrong between counts, slots and tables, whoever was scheduled."""
    if seen["changed"]:
        return "your code changes token_ids or num_siblings_to_fork; of a request only num_computed_tokens is yours"
    if not seen["kept"]:
        return (
            "the list that schedule_known_tokens returned for the step before is its caller's; this step has changed it"
        )
    for name in seen["waiting"]:
        if seen["computed"].get(name) != 0:
            return f"{name} waits, so it has nothing computed; its num_computed_tokens is {seen['computed'].get(name)}"
        if name in seen["in_tables"]:
            return f"{name} waits, and its table is still open"
    shares = dict(map(tuple, seen["scheduled"]))
    for name in shares:
        if name not in seen["running"]:
            return f"{name} is scheduled, and does not run"
    for (name, share), slots in zip(seen["scheduled"], seen["slots"], strict=True):
        if share < 1:
            return f"{name} is scheduled with {count_of(share, 'token')}: the budget is used up, or it needs nothing"
        if slots != share:
            return f"{name} has {count_of(slots, 'slot')} for {count_of(share, 'token')}"
    for name in seen["running"]:
        wanted = seen["computed"].get(name, 0) + shares.get(name, 0)
        if seen["in_tables"].get(name) != wanted:
            return (
                f"{name} has {count_of(wanted, 'token')} computed or scheduled, and {seen['in_tables'].get(name)} in "
                "its block table"
            )
    return None


def judge(case: Case, observations: Observations) -> str | None:
    """Step by step, and then the pool."""
    books = ScheduleBooks(case)
    for number, seen in enumerate(observations["steps"]):
        total = sum(share for _, share in seen["scheduled"])
        if total > case["budget"]:
            problem: str | None = f"{total} tokens scheduled, the budget is {case['budget']}"
        elif not case["on_paper"]:
            problem = tables_problem(seen)
        else:
            books.come_and_go(number)
            expected = books.step()
            problem = step_problem(expected, seen)
            books.compute(expected)
        if problem:
            return f"step {number + 1}: {problem}"
    if observations["open"]:
        return f"after step {len(observations['steps'])} nothing runs, and {', '.join(observations['open'])} wait"
    if not observations["steps"]:
        return f"no step was seen: {short(observations)}"
    if observations["num_free"] != case["num_blocks"]:
        return f"when all have ended {case['num_blocks']} blocks must be free, it is {observations['num_free']}"
    return None


def describe(case: Case) -> str:
    """Who comes when, and what there is to share."""
    requests = []
    for index, (when, num_prompt, num_output, *copies) in enumerate(case["arrivals"]):
        times = f", n={copies[0]}" if copies else ""
        requests.append(f"{LETTERS[index]} in step {when + 1} ({num_prompt} prompt + {num_output} output{times})")
    aborts = [f"{LETTERS[index]} is aborted before step {when + 1}" for when, index in case["aborts"]]
    limits = [f"a budget of {count_of(case['budget'], 'token')}"]
    if case["max_num_seqs"] < 100:
        limits.append(count_of(case["max_num_seqs"], "seat"))
    if case["num_blocks"] < 100:
        limits.append(f"{count_of(case['num_blocks'], 'block')} of {case['block_size']}")
    if case["shared_prefix"]:
        limits.append(f"all prompts begin with the same {count_of(case['shared_prefix'], 'token')}")
    return cut("; ".join([", ".join(limits), *requests, *aborts]))


def small_budgets(rng: random.Random) -> Iterator[Case]:
    for _ in range(3):
        arrivals = [(rng.randint(0, 4), rng.randint(1, 30), rng.randint(1, 6)) for _ in range(6)]
        yield traffic(sorted(arrivals), budget=rng.randint(3, 20))


def few_seats(rng: random.Random) -> Iterator[Case]:
    for _ in range(3):
        arrivals = sorted((rng.randint(0, 3), 4 * rng.randint(1, 6), 1) for _ in range(7))
        yield traffic(arrivals, num_blocks=rng.randint(6, 12), budget=rng.randint(4, 40), max_num_seqs=3)


def full_pools(rng: random.Random) -> Iterator[Case]:
    for block_size in (1, 2, 4):
        arrivals = sorted((rng.randint(0, 6), rng.randint(1, 12), rng.randint(1, 12)) for _ in range(6))
        yield traffic(arrivals, num_blocks=24 // block_size, block_size=block_size, budget=rng.randint(6, 30))


def full_caches(rng: random.Random) -> Iterator[Case]:
    for _ in range(3):
        arrivals = sorted((rng.randint(0, 6), rng.randint(9, 16), rng.randint(1, 12)) for _ in range(5))
        yield traffic(arrivals, num_blocks=9, shared_prefix=8, budget=rng.randint(5, 40), on_paper=0)


def anything(rng: random.Random) -> Iterator[Case]:
    for block_size in (1, 3, 4):
        arrivals = sorted((rng.randint(0, 20), rng.randint(1, 20), rng.randint(1, 10)) for _ in range(12))
        limits = {"budget": rng.randint(2, 24), "num_blocks": -(-36 // block_size), "max_num_seqs": rng.randint(2, 5)}
        aborts = sorted((rng.randint(arrivals[i][0] + 1, 30), i) for i in rng.sample(range(12), 3))
        yield traffic(arrivals, aborts, block_size=block_size, **limits)


prop = partial(  # a case takes milliseconds, and a scheduler that never returns is a common mistake
    Prop, drive=drive, judge=judge, describe=describe, in_order=("aborts", "arrivals"), time_limit=3
)

EXERCISE = Exercise(
    name="Scheduler",
    kind="class",
    properties=(
        prop(
            "decodes and chunks of prompt share a step, running requests first, within the token budget",
            weight=1.5,
            fixed=[
                traffic([(0, 2, 2)]),
                traffic([(0, 10, 2)], budget=4),
                traffic([(0, 3, 4), (1, 10, 2)], budget=4),
                traffic([(0, 3, 4), (1, 10, 2), (1, 2, 2)], budget=4),
                traffic([(0, 3, 4), (0, 4, 4), (0, 5, 4)], budget=8),
                traffic([(0, 2, 1), (0, 2, 1)], budget=1),
                *small_budgets(random.Random(1)),
            ],
            random=small_budgets,
        ),
        prop(
            "requests start in order of arrival, while there are seats, and blocks for all their known tokens",
            weight=1.0,
            fixed=[
                traffic([(0, 2, 2), (0, 2, 2)], max_num_seqs=1),
                traffic([(0, 6, 2), (0, 2, 2), (0, 1, 1)], max_num_seqs=2),
                traffic([(0, 2, 2), (0, 6, 2), (0, 2, 2)], max_num_seqs=1),  # the shorter one is later
                traffic([(0, 4, 1), (0, 8, 1)], num_blocks=3),  # just enough
                traffic([(0, 4, 1), (0, 12, 1), (0, 2, 1)], num_blocks=3),
                traffic([(0, 2, 3), (0, 2, 2, 2), (0, 2, 2)], max_num_seqs=3),
                traffic([(0, 4, 3), (0, 12, 1)], num_blocks=3, budget=8),  # room for its first chunk only
                traffic([(0, 2, 3), (0, 2, 2, 3)], max_num_seqs=3),
                traffic([(0, 2, 3), (0, 2, 2, 3), (0, 2, 2)], max_num_seqs=3),
                traffic([(0, 4, 2, 3), (0, 2, 2), (0, 2, 2)], max_num_seqs=4),
                traffic([(0, 4, 2, 3), (0, 2, 2), (0, 2, 2)], max_num_seqs=4, budget=2),
                traffic([(0, 2, 1), (0, 4, 3, 5), (0, 2, 1)], max_num_seqs=3),  # more seats than there are
                *few_seats(random.Random(1)),
            ],
            random=few_seats,
        ),
        prop(
            "in a full pool the latest arrival gives its blocks back, and waits at the head of the line",
            weight=1.5,
            fixed=[
                traffic([(0, 3, 4), (0, 3, 4)], num_blocks=4, block_size=2),
                traffic([(0, 4, 9), (0, 4, 9), (0, 4, 9)], num_blocks=5),
                traffic([(0, 4, 9), (0, 4, 9)], num_blocks=5, budget=3),  # computed again in chunks
                traffic([(0, 2, 7), (0, 2, 7), (0, 2, 7), (2, 1, 2), (2, 1, 2)], num_blocks=3),
                traffic([(0, 4, 9), (0, 16, 2, 2)], num_blocks=6, budget=4),  # in the middle of its prompt
                traffic([(0, 4, 7), (0, 5, 3)], num_blocks=3, budget=5),  # room for a part of its chunk
                traffic([(0, 4, 2, 4)], num_blocks=3, budget=3),  # two in one step: the first gives no block back
                *full_pools(random.Random(1)),
            ],
            random=full_pools,
        ),
        prop(
            "a request that starts, or starts again, computes just what the prefix cache does not have of it",
            weight=0.5,
            fixed=[
                traffic([(0, 6, 2), (2, 6, 2)], shared_prefix=4),
                traffic([(0, 8, 2), (2, 8, 2)], shared_prefix=8),  # all of it is cached
                traffic([(0, 9, 6), (2, 9, 2), (2, 10, 2), (2, 11, 2)], shared_prefix=8, budget=5),
                traffic([(0, 9, 3), (2, 9, 2)], shared_prefix=8, max_num_seqs=1),
                # b has blocks of its own, is preempted, and would find room at once, since the cache has a's
                traffic([(0, 9, 14), (0, 9, 14)], num_blocks=6, shared_prefix=8),
                traffic([(0, 9, 14), (0, 9, 14)], num_blocks=6, shared_prefix=8, budget=4),
                traffic([(0, 9, 9), (2, 9, 9), (2, 10, 9)], shared_prefix=8, aborts=[(4, 1), (5, 0)]),
                *full_caches(random.Random(1)),
            ],
            random=full_caches,
        ),
        prop(
            "whatever comes and goes, every request ends, in turn, and no block is lost",
            weight=0.5,
            fixed=[  # aborted while it runs, waits, has part of its prompt, has siblings or will have, was preempted
                traffic([(0, 3, 9), (1, 3, 9)], aborts=[(3, 0)]),
                traffic([(0, 3, 5), (0, 3, 5), (0, 3, 2)], max_num_seqs=1, aborts=[(2, 1)]),
                traffic([(0, 20, 3), (0, 2, 2)], budget=4, aborts=[(2, 0)]),
                traffic([(0, 4, 6, 3), (0, 2, 2)], max_num_seqs=3, aborts=[(3, 0)]),
                traffic([(0, 20, 3, 3), (0, 2, 2)], budget=4, max_num_seqs=3, aborts=[(2, 0)]),
                traffic([(0, 4, 9), (0, 4, 9), (0, 4, 9)], num_blocks=5, aborts=[(6, 2)]),
                traffic([(0, 4, 7), (0, 5, 3)], num_blocks=3, budget=5, aborts=[(3, 1)]),
                traffic([(0, 4, 3), (0, 4, 3), (0, 2, 2)], budget=4),
                *anything(random.Random(1)),
            ],
            random=anything,
        ),
    ),
)
