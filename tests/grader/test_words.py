"""What is expected and what came never read alike when they differ, and nothing is shown after the failure."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_exercises import PURSE, Purse, TakesAndRefuses

from grader.checks.closeness import closeness_problem
from grader.framework import (
    Case,
    Exercise,
    Outcome,
    PropertyResult,
    describe_case,
    tensor_problem,
    two_numbers,
    two_texts,
)
from grader.framework.words import expected_got
from grader.running import LocalDriver, run

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
LONG_LISTS = st.lists(st.integers(0, 99), min_size=60, max_size=90)


@given(VALUES | LONG_LISTS, VALUES | LONG_LISTS)
def test_texts_of_different_values_differ(first: Any, second: Any) -> None:
    assert (two_texts(first, second)[0] == two_texts(first, second)[1]) == (repr(first) == repr(second))


@given(LONG_LISTS, st.data())
def test_one_change_in_a_long_list_is_seen_wherever_it_is(values: list[int], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(values) - 1))
    other = [*values[:index], 1000 + values[index], *values[index + 1 :]]
    expected, got = two_texts(values, other)
    assert expected != got
    assert str(1000 + values[index]) in got
    assert len(expected) <= 90
    assert len(got) <= 90


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_different_numbers_are_told_apart(first: float, second: float) -> None:
    texts = two_numbers(first, second)
    assert (texts[0] == texts[1]) == (repr(first) == repr(second))


def test_numbers_get_more_digits_only_where_they_look_alike() -> None:
    assert two_numbers(0.123, 0.5) == ("0.123", "0.5")
    assert two_numbers(0.1231, 0.1234) == ("0.1231", "0.1234")
    assert two_numbers(1.0, 1.0 + 2**-52) == ("1", "1.0000000000000002")


@pytest.mark.parametrize("digit", [4, 7])
def test_tensors_that_look_alike_are_told_with_more_digits(digit: int) -> None:
    expected = torch.tensor([1.0, 0.123], dtype=torch.float64)
    got = expected + torch.tensor([0.0, 10.0**-digit], dtype=torch.float64)
    for problem in (tensor_problem("x", expected, got), closeness_problem("x", expected, got, 0.0, 0.0)):
        _, _, numbers = str(problem).partition(": expected ")
        wanted, came = numbers.split(", got ")
        assert wanted != came


def test_tensors_of_one_shape_are_told_with_their_values() -> None:
    assert expected_got([torch.tensor([1, 2])], [torch.tensor([1, 3])]).endswith("[1, 3]]")


def test_examples_hold_no_number_of_sixteen_digits() -> None:
    text = describe_case({"k": torch.tensor([0.1, 1 / 3]), "n": torch.tensor([3])})
    assert text == "k=float32 tensor of shape [2] [0.1, 0.3333], n=int64 tensor of shape [1] [3]"


# ---------------------------------------------------------------- no further than to the failure


class TakesInOrder(TakesAndRefuses):
    """One take after another, from a purse of three."""

    sentence = "one take after another"
    in_order = ("asked",)

    def fixed_cases(self) -> Iterator[Case]:
        yield {"size": 3, "asked": [1, 1, 2, 1, 1, 1]}

    def drive(self, parts: SimpleNamespace, case: Case) -> Any:
        purse, left = parts.Purse(case["size"]), []
        for count in case["asked"]:
            purse.take(count) if count <= purse.left else None
            left.append(purse.left)
        return left

    def judge(self, case: Case, observations: Any) -> str | None:
        left = case["size"]
        for number, (count, seen) in enumerate(zip(case["asked"], observations, strict=True), 1):
            left -= count if count <= left else 0
            if seen != left:
                return f"take {number}: {left} should be left, got {seen}"
        return None


class TakesTooMuch(Purse):
    def take(self, count: int) -> None:
        self.left -= 2 if self.left == 2 else count


class Breaks(Purse):
    def take(self, count: int) -> None:
        self.left -= count
        if self.left == 1:
            raise RuntimeError("broken")


class NeverEnds(Purse):
    def take(self, count: int) -> None:
        while True:
            pass


def first_of(obj: type, item: TakesInOrder, longest: float | None = None) -> PropertyResult:
    exercise = Exercise("Purse", "class", (item,))
    return run(exercise, 1, LocalDriver(exercise, obj, longest), shorten=True).properties[0]


@pytest.mark.parametrize("obj", [TakesTooMuch, Breaks])
def test_nothing_after_the_failing_operation_is_shown(obj: type) -> None:
    assert first_of(obj, TakesInOrder()).case_text == "size=3, asked=[1, 1]"


def test_what_takes_too_long_is_not_tried_again() -> None:
    result = first_of(NeverEnds, TakesInOrder(), longest=0.05)
    assert result.outcome is Outcome.TIMED_OUT
    assert "a loop never ends" in result.message
    assert result.case_text == "size=3, asked=[1, 1, 2, 1, 1, 1]"


# ---------------------------------------------------------------- whose stub it is


class OtherPurse:
    def take(self, count: int) -> None:
        raise NotImplementedError("your code here")


def test_the_stub_of_another_class_is_not_reported_as_ones_own() -> None:
    namespace: dict[str, Any] = {"Other": OtherPurse}
    cell = "class Purse:\n def __init__(self, size): pass\n def take(self, count): Other().take(count)\n"
    exec(compile(cell, "<another cell>", "exec"), namespace)
    first = run(PURSE, 1, LocalDriver(PURSE, namespace["Purse"])).properties[0]
    assert first.outcome is Outcome.CRASHED
    assert first.message == "your Purse uses `OtherPurse.take`, which is still a stub"
