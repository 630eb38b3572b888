"""Checks of `expert_capacity`, against places handed out until there are enough."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

from grader.framework import Case, Exercise, Observations, Prop, plain, short

CLEAR = Fraction(1, 1000)  # farther from an integer than floats lose, whatever the order in which they multiply


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Ask for the capacity."""
    return plain(parts.expert_capacity(**case))


def judge(case: Case, observations: Observations) -> str | None:
    """The fewest places, and no fewer than one, that are as many as the share asks for."""
    expected = 1
    while expected < exact(case):
        expected += 1
    if type(observations) is not int:
        return f"expected the int {expected}, got {short(observations)}"
    return None if observations == expected else f"expected {expected}, got {observations}"


def exact(case: Case) -> Fraction:
    """The share times the factor, not rounded."""
    pairs = case["num_tokens"] * case["top_k"]
    return Fraction(pairs, case["num_experts"]) * Fraction(case["capacity_factor"])


def make(num_tokens: int, top_k: int, num_experts: int, capacity_factor: float) -> Case:
    """A case on which every right order of operations agrees.

    Raises:
        ValueError: it hangs on how floats are rounded.
    """
    case = {
        "num_tokens": num_tokens,
        "top_k": top_k,
        "num_experts": num_experts,
        "capacity_factor": capacity_factor,
    }
    if not is_clear(case):
        raise ValueError(f"{case} hangs on rounding")
    return case


def is_clear(case: Case) -> bool:
    """Whether floats cannot be rounded to another integer: nothing is lost, or the result is far from every integer."""
    away = exact(case) % 1
    powers = case["num_experts"] & (case["num_experts"] - 1) == 0 and case["capacity_factor"] % 0.25 == 0
    return powers or CLEAR < away < 1 - CLEAR


def any_sizes(rng: random.Random) -> Iterator[Case]:
    for _ in range(5):
        while True:
            case: Case = {"num_tokens": rng.randint(1, 500), "num_experts": rng.randint(8, 128)}
            case["top_k"] = rng.randint(1, 8)
            case["capacity_factor"] = rng.choice((0.5, 1.0, 1.1, 1.25, 1.3, 1.5, 2.0))
            if is_clear(case):
                yield case
                break


prop = partial(Prop, drive=drive, judge=judge)

EXERCISE = Exercise(
    name="expert_capacity",
    kind="function",
    properties=(
        prop(
            "an expert takes its even share of the pairs times the factor, rounded up",
            weight=0.25,
            fixed=[
                make(4, 1, 4, 1.0),
                make(8, 2, 4, 1.0),
                make(8, 1, 4, 1.5),
                make(5, 1, 4, 1.0),
                make(9, 1, 8, 1.0),
                make(5, 2, 4, 1.25),
                make(3, 2, 4, 2.0),
                make(4, 2, 2, 2.0),
                make(100, 8, 128, 1.1),
                make(7, 3, 2, 0.5),
                make(1000, 2, 3, 1.25),
            ],
            random=any_sizes,
        ),
        prop(
            "an expert takes at least one pair, however few there are",
            weight=0.25,
            fixed=[make(1, 1, 8, 1.0), make(0, 2, 4, 1.0), make(1, 2, 128, 1.25), make(3, 1, 64, 0.5)],
        ),
    ),
)
