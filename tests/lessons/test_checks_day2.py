"""The checks of Day 2's exercises in torch and Python: what they must refuse and accept, and their oracles."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.cells import id_of
from support.models import VOCAB, drain, make_engine, tiny_model
from torch import Tensor

from grader.checks import exercises, find_exercise
from grader.checks.day2.merge_attention_states import split_case
from grader.checks.day2.paged_attention import attention_by_definition, batch
from grader.checks.day2.scheduler import MAX_STEPS, Traffic, traffic
from grader.checks.oracles.schedules import ScheduleBooks, Sequence
from grader.framework import Exercise, Outcome
from grader.mutants import Specimen, specimens
from grader.running import LocalDriver, run
from tinyllm.attention.paged_attention import paged_attention
from tinyllm.attention.torch import TorchAttention
from tinyllm.config import SamplingParams
from tinyllm.engine.request import Request
from tinyllm.engine.scheduler import Scheduler
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.kernels import reference
from tinyllm.kernels.reference import merge_attention_states
from tinyllm.parts import all_parts, resolve

pytestmark = pytest.mark.usefixtures("one_thread")

EXERCISES = [
    exercise for exercise in exercises().values() if all_parts()[exercise.name].day == 2 and exercise.kind != "kernel"
]
ALTERNATES = [(exercise, item) for exercise in EXERCISES for item in specimens(exercise).alternates]
IN_ENGINE = [(exercise, item) for exercise, item in ALTERNATES if exercise.name != "merge_attention_states"]


# ---------------------------------------------------------------- what must be accepted


def engine_tokens(parts: dict[str, Any], num_blocks: int = 16, **options: Any) -> dict[str, Any]:
    """What an engine on these parts says to prompts that begin alike, in a pool that is too small for all of them."""
    rng = random.Random(7)
    common = [rng.randrange(VOCAB) for _ in range(9)]
    engine = make_engine(tiny_model(), resolve(parts), num_blocks=num_blocks, **options)
    for number in range(6):
        prompt = common[: rng.randint(1, 9)] + [rng.randrange(VOCAB) for _ in range(rng.randint(1, 8))]
        sampling = SamplingParams(max_tokens=8, n=1 + number % 3, temperature=0.7 * (number % 2), seed=number)
        engine.add_request(prompt, sampling, str(number))
    with torch.inference_mode():
        return drain(engine)


@pytest.mark.parametrize("budget", [5, 512])
@pytest.mark.parametrize(("exercise", "item"), IN_ENGINE, ids=id_of)
def test_the_engine_says_the_same_on_an_alternate(exercise: Exercise, item: Specimen, budget: int) -> None:
    parts = {exercise.name: item.obj}
    assert engine_tokens(parts, max_num_batched_tokens=budget) == engine_tokens({}, num_blocks=64)


def test_the_engine_computes_prompts_with_the_part_that_it_is_given() -> None:
    shapes: list[tuple[int, int]] = []

    def noting(q: Tensor, *args: Any) -> Tensor:
        shapes.append((len(q), len(args[3])))  # tokens, and sequences
        return paged_attention(q, *args)

    assert engine_tokens({"paged_attention": noting}) == engine_tokens({})
    assert max(sequences for _, sequences in shapes) > 1
    assert all(tokens > sequences for tokens, sequences in shapes), "decodes go another way"


def test_the_part_may_be_given_the_decodes_too() -> None:
    engine = make_engine(tiny_model())
    expected = make_engine(tiny_model())
    engine.runner.backend = TorchAttention(group_decodes=False)  # type: ignore[attr-defined]
    for each in (engine, expected):
        for length in (1, 2, 9, 30):
            each.add_request(range(length), SamplingParams(max_tokens=6), str(length))
    with torch.inference_mode():
        assert drain(engine) == drain(expected)


# ---------------------------------------------------------------- what must be refused


def in_double(q: Tensor, *args: Any) -> Tensor:
    """Right, but of a dtype that the engine cannot put into its output."""
    return paged_attention(q.double(), args[0].double(), args[1].double(), *args[2:])


def scales_its_queries(q: Tensor, *args: Any) -> Tensor:
    """Right, and leaves the caller's q changed."""
    out = paged_attention(q, *args)
    q.mul_(2)
    return out


def reads_tables_from_the_end(q: Tensor, k: Tensor, v: Tensor, tables: Tensor, *args: Any) -> Tensor:
    return paged_attention(q, k, v, tables.flip(1), *args)


def takes_every_sequence_for_a_decode(
    q: Tensor, k: Tensor, v: Tensor, tables: Tensor, lens: Tensor, starts: Tensor, block_size: int
) -> Tensor:
    return paged_attention(q[: len(lens)], k, v, tables, lens, torch.arange(len(lens) + 1), block_size)


def one_tensor_only(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
    return merge_attention_states(out_a, lse_a, out_b, lse_b)[0]


def turned_round(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    return merge_attention_states(out_b, lse_a, out_a, lse_b)


class SchedulesTwice(Scheduler):
    """Lists the first request twice."""

    def schedule_running(self) -> tuple[list[ScheduledRequest], list[Request]]:
        scheduled, preempted = super().schedule_running()
        return scheduled + scheduled[:1], preempted


class LeavesOneTokenOfTheBudget(Scheduler):
    def admit_waiting(self, budget: int) -> list[ScheduledRequest]:
        return super().admit_waiting(budget - 1)


class NeverPreempts(Scheduler):
    """Stops at a full pool, and the engine stands still."""

    def schedule_running(self) -> tuple[list[ScheduledRequest], list[Request]]:
        scheduled = []
        for request in self.running:
            slots = self.kv.append(request.request_id, request.num_uncomputed_tokens)
            if slots is None:
                break
            scheduled.append(ScheduledRequest(request, slots))
        return scheduled, []


class HidesItsVictims(Scheduler):
    def schedule_known_tokens(self) -> tuple[list[ScheduledRequest], list[Request]]:
        return super().schedule_known_tokens()[0], []


class OneAStep(Scheduler):
    """Admits a single request a step."""

    def admit_waiting(self, budget: int) -> list[ScheduledRequest]:
        others = list(self.waiting)[1:]
        while len(self.waiting) > 1:
            self.waiting.pop()
        scheduled = super().admit_waiting(budget)
        self.waiting.extend(others)
        return scheduled


class ForgetsHits(Scheduler):
    """Computes a prefix that it found in the cache again."""

    def admit_waiting(self, budget: int) -> list[ScheduledRequest]:
        scheduled = super().admit_waiting(budget)
        for item in scheduled:
            item.request.num_computed_tokens = 0
        return scheduled


WRONG: list[tuple[str, Callable[..., Any]]] = [
    *[("paged_attention", f) for f in (in_double, scales_its_queries, reads_tables_from_the_end)],
    ("paged_attention", takes_every_sequence_for_a_decode),
    *[("merge_attention_states", f) for f in (one_tensor_only, turned_round)],
    *[("Scheduler", c) for c in (SchedulesTwice, LeavesOneTokenOfTheBudget, NeverPreempts, HidesItsVictims)],
    *[("Scheduler", c) for c in (OneAStep, ForgetsHits)],
]


@pytest.mark.parametrize(("name", "answer"), WRONG, ids=[answer.__name__ for _, answer in WRONG])
def test_wrong_answers_without_a_name_are_refused_too(name: str, answer: Callable[..., Any]) -> None:
    for seed in (1, 2, 3):
        result = run(find_exercise(name), seed, LocalDriver(find_exercise(name), answer))
        assert result.outcome in (Outcome.WRONG, Outcome.CRASHED)


# ---------------------------------------------------------------- what a learner reads


def test_a_step_is_told_in_words() -> None:
    exercise = find_exercise("Scheduler")
    first = run(exercise, 1, LocalDriver(exercise, SchedulesTwice)).properties[0]
    assert first.case_text == "a budget of 100 tokens; a in step 1 (2 prompt + 2 output)"
    assert first.message == "step 2: expected a: 1 token; got a: 1 token, a: 1 token"


def test_a_batch_is_told_in_words() -> None:
    exercise = find_exercise("paged_attention")
    first = run(exercise, 1, LocalDriver(exercise, takes_every_sequence_for_a_decode)).properties[1]
    assert first.case_text.startswith("2 tokens, the last 2 of them new: P=2, Hq=1, Hkv=1, D=4, block_tables=[[")
    assert first.message == "the output ([T, Hq, D]) should have shape [2, 1, 4], got [1, 1, 4]"


class ListsTheEarliestVictimFirst(Scheduler):
    def schedule_running(self) -> tuple[list[ScheduledRequest], list[Request]]:
        scheduled, preempted = super().schedule_running()
        return scheduled, preempted[::-1]


def test_preempted_requests_may_be_listed_in_any_order() -> None:
    exercise = find_exercise("Scheduler")
    case = traffic([(0, 4, 2, 4)], num_blocks=3, budget=3)
    step = Traffic(SimpleNamespace(Scheduler=Scheduler), case).run()["steps"][2]
    assert step["preempted"] == ["a3", "a2"], "two in one step"
    assert run(exercise, 1, LocalDriver(exercise, ListsTheEarliestVictimFirst)).outcome is Outcome.RIGHT


class GivesATokenToTheVictim(Scheduler):
    """Schedules what it has preempted."""

    def schedule_running(self) -> tuple[list[ScheduledRequest], list[Request]]:
        scheduled, preempted = super().schedule_running()
        return scheduled + [ScheduledRequest(request, [0]) for request in preempted], preempted


def test_a_scheduled_request_that_does_not_run_is_told_and_crashes_nothing() -> None:
    exercise = find_exercise("Scheduler")
    result = run(exercise, 1, LocalDriver(exercise, GivesATokenToTheVictim))
    assert {item.outcome for item in result.properties} == {Outcome.RIGHT, Outcome.WRONG}
    assert (
        result.properties[2].message
        == "step 3: expected a: 1 token; preempted b; got a: 1 token, b: 1 token; preempted b"
    )


# ---------------------------------------------------------------- the oracles


@pytest.mark.parametrize("strided", [False, True])
def test_attention_by_definition_is_that_of_torch(strided: bool) -> None:
    case = batch([(11, 4), (1, 1), (7, 7)], 3, heads=(6, 2), strided=strided)
    expected, _ = reference.paged_attention_with_lse(*case.values(), dtype=torch.float64)
    torch.testing.assert_close(attention_by_definition(case), expected, rtol=1e-12, atol=1e-12)
    assert case["q"].is_contiguous() is not strided


def test_the_states_of_a_case_are_attention_over_its_positions() -> None:
    case = split_case(random.Random(0), [3], (4, 5), 2)
    whole = F.softmax(case["scores"], -1) @ case["values"]
    merged, _ = merge_attention_states(*(case[name] for name in ("out_a", "lse_a", "out_b", "lse_b")))
    torch.testing.assert_close(merged, whole)


def test_the_books_keep_as_many_as_fit() -> None:
    books = ScheduleBooks(traffic([], num_blocks=5))
    books.line = [Sequence(name, known=9, final=20, computed=8, held=2) for name in "abc"]
    books.num_running = 3
    books.case["num_blocks"] = 6
    step = books.step()
    assert (step.scheduled, step.preempted) == ([("a", 1), ("b", 1)], ["c"])
    assert [r.held for r in books.line] == [3, 3, 0]
    assert (step.running, step.waiting) == (["a", "b"], ["c"])


def test_the_books_hand_out_one_budget() -> None:
    books = ScheduleBooks(traffic([], budget=5))
    books.line = [Sequence("a", 4, 9, computed=3, held=1), Sequence("b", 8, 9), Sequence("c", 1, 9)]
    books.num_running = 1
    step = books.step()
    assert (step.scheduled, step.running, step.waiting) == ([("a", 1), ("b", 4)], ["a", "b"], ["c"])
    books.compute(step)
    assert [(r.known, r.computed) for r in books.line] == [(5, 4), (8, 4), (1, 0)]


def test_traffic_that_never_ends_is_given_up() -> None:
    class Restless(Scheduler):
        """Preempts what it has just scheduled."""

        def schedule_known_tokens(self) -> tuple[list[ScheduledRequest], list[Request]]:
            self.admit_waiting(100)
            return [], [self.preempt_last()]

    seen = Traffic(SimpleNamespace(Scheduler=Restless), traffic([(0, 3, 3)])).run()
    assert len(seen["steps"]) == MAX_STEPS
    assert seen["open"] == ["a"]
