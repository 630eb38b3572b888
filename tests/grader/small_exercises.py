"""Two made-up exercises, small enough to see through: a function over tensors and a class that runs out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch

from grader.framework import Case, CheckResult, Exercise, Property, generator, outcome_of, plain, tensor_problem
from grader.running import LocalDriver, run

#: A right answer to Purse, as a cell.
PURSE_CELL = """\
class Purse:
    def __init__(self, size):
        self.left = size

    def take(self, count):
        if count > self.left:
            raise ValueError("too little is left")
        self.left -= count

    def give(self, count):
        self.left += count
"""


class SumsAreRunning(Property):
    sentence = "every value is the sum of those up to it"
    weight = 1
    time_limit = 5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        yield {"values": torch.tensor([2.0])}
        yield {"values": torch.tensor([1.0, 2.0, 4.0])}
        yield {"values": torch.randn(7, 3, generator=generator(rng))[:, 1]}

    def drive(self, parts: SimpleNamespace, case: Case) -> Any:
        return {"sums": plain(parts.running_sum(case["values"]))}

    def judge(self, case: Case, observations: Any) -> str | None:
        return tensor_problem("the result", case["values"].cumsum(0), observations["sums"], atol=1e-5)


class EmptyIsEmpty(Property):
    sentence = "nothing adds up to nothing"
    weight = 0.5
    time_limit = 5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        yield {"values": torch.empty(0)}

    def drive(self, parts: SimpleNamespace, case: Case) -> Any:
        return parts.running_sum(case["values"])

    def judge(self, case: Case, observations: Any) -> str | None:
        return tensor_problem("the result", torch.empty(0), observations)


class NeedsCuda(Property):
    sentence = "it is fast"
    weight = 0.5
    requires = "cuda"

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        yield {}

    def drive(self, parts: SimpleNamespace, case: Case) -> Any:
        return True

    def judge(self, case: Case, observations: Any) -> str | None:
        return None


class TakesAndRefuses(Property):
    sentence = "it gives what it has and refuses the rest"

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        for size in (1, 3):
            yield {"size": size, "asked": [1] * (size + 1)}

    def drive(self, parts: SimpleNamespace, case: Case) -> Any:
        purse = parts.Purse(case["size"])
        return [outcome_of(lambda: purse.take(1)) for _ in case["asked"]]

    def judge(self, case: Case, observations: Any) -> str | None:
        if observations[-1].get("raised") != "ValueError":
            return f"the last take should raise ValueError, got {observations[-1]}"
        return None if all("value" in seen for seen in observations[:-1]) else "a take that should succeed was refused"


class GivesBack(Property):
    sentence = "what is given back can be taken again"

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        yield {"size": 2}

    def drive(self, parts: SimpleNamespace, case: Case) -> Any:
        purse = parts.Purse(case["size"])
        purse.take(2)
        purse.give(1)
        return outcome_of(lambda: purse.take(1))

    def judge(self, case: Case, observations: Any) -> str | None:
        return None if "value" in observations else f"expected no error, got {observations['raised']}"


RUNNING_SUM = Exercise("running_sum", "function", (SumsAreRunning(), EmptyIsEmpty(), NeedsCuda()))
PURSE = Exercise("Purse", "class", (TakesAndRefuses(), GivesBack()))
KNOWN = {"running_sum": RUNNING_SUM, "Purse": PURSE}


def running_sum(values: torch.Tensor) -> torch.Tensor:
    return values.cumsum(0)


class Purse:
    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, count: int) -> None:
        if count > self.left:
            raise ValueError("too little is left")
        self.left -= count

    def give(self, count: int) -> None:
        self.left += count


def result_of(exercise: Exercise, obj: Any, seed: int = 1, longest: float | None = None) -> CheckResult:
    """Check an object at home, without a diagnosis."""
    return run(exercise, seed, LocalDriver(exercise, obj, longest))
