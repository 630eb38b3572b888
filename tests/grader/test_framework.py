"""The four outcomes, and what learners' code may do to a check without harming it."""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import time

import pytest
import torch
from small_exercises import PURSE, RUNNING_SUM, Purse, result_of, running_sum

from grader.framework import CheckResult, Exercise, Outcome
from grader.running import LocalDriver
from grader.running.copies import copied, same
from grader.running.limits import MAX_PRINTED, TimeLimitExceeded, recorded_output, time_limit


def outcomes(result: CheckResult) -> list[Outcome]:
    return [item.outcome for item in result.properties]


# ---------------------------------------------------------------- the outcomes


def test_right_earns_every_point_that_can_be_checked() -> None:
    result = result_of(RUNNING_SUM, running_sum)
    assert result
    assert result.points == 1.5 + 0.5 * torch.cuda.is_available()
    assert result.max_points == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what a machine without CUDA says")
def test_what_cannot_be_checked_is_said_and_earns_nothing() -> None:
    last = result_of(RUNNING_SUM, running_sum).properties[-1]
    assert last.outcome is Outcome.NOT_CHECKED
    assert last.points == 0
    assert "NVIDIA" in last.message


def test_untouched_stub_is_not_attempted() -> None:
    class Stub:
        def __init__(self, size: int) -> None:
            self.size = size

        def take(self, count: int) -> None:
            raise NotImplementedError("your code here")

    result = result_of(PURSE, Stub)
    assert result.outcome is Outcome.NOT_ATTEMPTED
    assert outcomes(result) == [Outcome.NOT_ATTEMPTED] * 2
    assert result.points == 0
    assert "`take` is still the stub" in result.properties[0].message


def test_half_done_class_earns_its_half_and_is_told_what_is_missing() -> None:
    class HalfDone(Purse):
        def give(self, count: int) -> None:
            raise NotImplementedError("your code here")

    result = result_of(PURSE, HalfDone)
    assert outcomes(result) == [Outcome.RIGHT, Outcome.NOT_ATTEMPTED]
    assert result.outcome is Outcome.WRONG
    assert result.points == 1
    assert "`give` is still the stub" in result.properties[1].message
    assert "Purse: not finished, 1 of" in str(result)
    assert "So far so good" in str(result)


def test_not_implemented_error_of_a_library_is_a_crash() -> None:
    def unsupported(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.Module()(values)

    assert result_of(RUNNING_SUM, unsupported).properties[0].outcome is Outcome.CRASHED


def test_crash_names_error_line_and_input() -> None:
    def crashes(values: torch.Tensor) -> torch.Tensor:
        nothing: list[int] = []
        return values * nothing[3]

    first = result_of(RUNNING_SUM, crashes).properties[0]
    assert first.outcome is Outcome.CRASHED
    assert "IndexError: list index out of range" in first.message
    assert "return values * nothing[3]" in first.message
    assert "(in `crashes`)" in first.message
    assert "[2.0]" in first.case_text


def test_wrong_shows_the_smallest_case_that_fails() -> None:
    first = result_of(RUNNING_SUM, lambda values: values).properties[0]
    assert first.outcome is Outcome.WRONG
    assert first.case_index == 1  # a single value is its own sum
    assert "expected 3, got 2" in first.message
    assert "[1.0, 2.0, 4.0]" in first.case_text


def test_seed_decides_the_cases() -> None:
    def wrong_on_drawn_values(values: torch.Tensor) -> torch.Tensor:
        return values.cumsum(0) + (len(values) == 7)

    texts = [result_of(RUNNING_SUM, wrong_on_drawn_values, seed).properties[0].message for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_exercise_needs_sentences_of_their_own() -> None:
    with pytest.raises(ValueError, match="sentence"):
        Exercise("running_sum", "function", RUNNING_SUM.properties[:1] * 2)
    with pytest.raises(ValueError, match="at least one property"):
        Exercise("running_sum", "function", ())


def test_result_survives_json() -> None:
    result = result_of(RUNNING_SUM, lambda values: values)
    assert CheckResult.from_dict(result.to_dict()) == result


# ---------------------------------------------------------------- hostile and unlucky code


class AlwaysEqual:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> AlwaysEqual:
        return self

    def __call__(self, *args: object, **kwargs: object) -> AlwaysEqual:
        return self


class LyingTensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return torch.tensor(True)


class LyingInt(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "answer",
    [
        AlwaysEqual(),
        torch.zeros(1).as_subclass(LyingTensor),
        LyingInt(3),
        None,
        "a string",
        float("nan"),
        torch.tensor([float("nan")]),
        torch.tensor([[2.0]]),
        torch.tensor([2]),
        torch.tensor([2.0], dtype=torch.float64),
        [2.0],
        {"sums": 2},
        AlwaysEqual,
        torch.tensor([2.0]).to_sparse(),
        torch.empty(1, device="meta"),
        iter(int, 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_wrong_kinds_of_answers_are_wrong(answer: object) -> None:
    result = result_of(RUNNING_SUM, lambda values: answer)
    assert result.properties[0].outcome in (Outcome.WRONG, Outcome.CRASHED)
    assert result.properties[0].message
    assert result.points == 0


@pytest.mark.parametrize(
    "answer",
    [
        torch.zeros(1).expand(10**9),
        range(10**12),
        [[0] * 1000] * 10_000,
        "x" * 10**8,
    ],
    ids=["tensor", "range", "list", "text"],
)
def test_huge_answers_are_refused(answer: object) -> None:
    first = result_of(RUNNING_SUM, lambda values: answer).properties[0]
    assert first.outcome is Outcome.CRASHED
    assert "not looked at" in first.message


def test_hostile_class_attributes_do_not_reach_the_check() -> None:
    class Hostile(Purse):
        anything = AlwaysEqual()

    assert result_of(PURSE, Hostile)


def test_endless_nesting_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert "nested" in result_of(RUNNING_SUM, lambda values: endless).properties[0].message


def test_changing_an_argument_is_wrong_even_if_the_answer_is_right() -> None:
    def in_place(values: torch.Tensor) -> torch.Tensor:
        return values.cumsum_(0) if len(values) else values

    first = result_of(RUNNING_SUM, in_place).properties[0]
    assert first.outcome is Outcome.WRONG
    assert "changes its argument `values`" in first.message
    assert first.case_index == 1


def test_endless_loop_ends_with_words() -> None:
    def loops(values: torch.Tensor) -> torch.Tensor:
        while True:
            pass

    result = result_of(RUNNING_SUM, loops, longest=0.2)
    assert result.outcome is Outcome.TIMED_OUT
    assert "longer than 5 seconds" in result.properties[0].message


def test_endless_loop_that_swallows_exceptions_ends_too() -> None:
    def loops(values: torch.Tensor) -> torch.Tensor:
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    assert result_of(RUNNING_SUM, loops, longest=0.2).outcome is Outcome.TIMED_OUT


def test_deep_recursion_is_a_crash() -> None:
    def recurses(values: torch.Tensor) -> torch.Tensor:
        return recurses(values)

    first = result_of(RUNNING_SUM, recurses).properties[0]
    assert first.outcome is Outcome.CRASHED
    assert "RecursionError" in first.message


def test_exit_is_a_crash_and_no_exit() -> None:
    def leaves(values: torch.Tensor) -> torch.Tensor:
        sys.exit(0)

    assert "SystemExit" in result_of(RUNNING_SUM, leaves).properties[0].message


def test_error_that_cannot_be_printed_is_a_crash() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def crashes(values: torch.Tensor) -> torch.Tensor:
        raise Unprintable

    assert "Unprintable" in result_of(RUNNING_SUM, crashes).properties[0].message


def test_interrupt_reaches_the_learner() -> None:
    def interrupted(values: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        result_of(RUNNING_SUM, interrupted)


def test_output_of_the_failing_case_is_kept_within_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    def chatty(values: torch.Tensor) -> torch.Tensor:
        print(f"values has {len(values)} entries")
        print("x" * 1000 * MAX_PRINTED, file=sys.stderr)
        return values

    first = result_of(RUNNING_SUM, chatty).properties[0]
    assert first.printed.startswith("values has 3 entries")
    assert len(first.printed) < MAX_PRINTED + 100
    assert capsys.readouterr() == ("", "")


# ---------------------------------------------------------------- pieces


def test_time_limit_leaves_an_outer_alarm_running() -> None:
    with time_limit(60):
        with time_limit(5):
            pass
        left, _ = signal.getitimer(signal.ITIMER_REAL)
    assert 50 < left <= 60


def test_time_limit_ends_a_block() -> None:
    with pytest.raises(TimeLimitExceeded), time_limit(0.05):
        time.sleep(60)


def test_time_limit_puts_the_old_handler_back() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(5):
        assert signal.getsignal(signal.SIGALRM) is not before
    assert signal.getsignal(signal.SIGALRM) is before


def test_recorded_output_gives_the_screen_back(capsys: pytest.CaptureFixture[str]) -> None:
    with recorded_output() as record:
        print("inside")
    print("outside")
    assert str(record) == "inside\n"
    assert capsys.readouterr().out == "outside\n"


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(24.0).view(4, 6)[::2, 1::2],
        torch.arange(6).view(2, 3).t(),
        torch.zeros(3).expand(5, 3),
        torch.empty(0, 4),
        torch.tensor(7, dtype=torch.bfloat16),
        torch.tensor([True, False]),
        {"a": [1, (2, None)], "nan": float("nan")},
    ],
    ids=str,
)
def test_copies_are_equal_and_apart(value: object) -> None:
    copy = copied(value)
    assert same(copied(value), copy)
    if isinstance(value, torch.Tensor):
        assert copy.stride() == value.stride()
        assert not value.numel() or copy.data_ptr() != value.data_ptr()


def test_equal_numbers_with_other_strides_are_another_case() -> None:
    """A driver that remembers must not take one for the other."""
    rows = torch.arange(4.0).view(2, 2)
    assert not same({"x": rows}, {"x": rows.T.contiguous().T})
    assert same({"x": rows.T}, copied({"x": rows.T}))


def test_same_asks_nothing_of_the_learners_objects() -> None:
    assert not same([1], [LyingInt(1)])
    assert not same([1], AlwaysEqual())
    assert not same({"a": 1}, {"a": 1, "b": 1})
    assert not same(torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    assert same(torch.tensor([float("nan")]), torch.tensor([float("nan")]))


def test_cases_of_a_property_do_not_depend_on_its_neighbors() -> None:
    drawn = random.Random(f"1/running_sum/{RUNNING_SUM.properties[0].sentence}")
    wanted = list(RUNNING_SUM.properties[0].cases(drawn))[-1]
    seen = []

    def watching(values: torch.Tensor) -> torch.Tensor:
        seen.append(values.clone())
        return values.cumsum(0)

    result_of(Exercise("running_sum", "function", RUNNING_SUM.properties[::-1]), watching)
    assert any(torch.equal(values, wanted["values"]) for values in seen)


def test_driver_can_be_given_a_shorter_limit() -> None:
    def sleeps(values: torch.Tensor) -> torch.Tensor:
        time.sleep(60)
        return values

    report = LocalDriver(RUNNING_SUM, sleeps, longest=0.05)(0, {"values": torch.zeros(1)})
    assert report.ending == "timed out"
