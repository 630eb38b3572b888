"""Checks of `update_expert_bias`, against the rule in whole numbers and fractions, one expert at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor

from grader.checks.closeness import closeness_problem
from grader.framework import Case, Exercise, Observations, Prop, generator, plain


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """The new bias, and whether it lies in the memory of the old one."""
    bias = case["expert_bias"]
    new = parts.update_expert_bias(bias, case["counts"], case["update_rate"])
    shared = isinstance(new, Tensor) and new.untyped_storage().data_ptr() == bias.untyped_storage().data_ptr()
    return {"bias": plain(new), "shared": shared}


def judge(case: Case, observations: Observations, dtype: bool = False) -> str | None:
    """Held against the rule, within the rounding of the bias's dtype; its own dtype is looked at where `dtype`."""
    if observations["shared"]:
        return "what it returns must be new; it shares memory with its argument expert_bias"
    old, got = case["expert_bias"], observations["bias"]
    expected = by_the_rule(old.tolist(), case["counts"].tolist(), case["update_rate"])
    largest = max(case["update_rate"], *old.abs().tolist(), *expected.abs().tolist())
    atol = 4 * torch.finfo(old.dtype).eps * largest
    problem = closeness_problem("the new bias ([E])", expected, got, rtol=0, atol=atol)
    if problem or not dtype or got.dtype is old.dtype:
        return problem
    return f"the new bias should be {old.dtype}, as the old one is, got {got.dtype}"


def by_the_rule(bias: Sequence[float], counts: Sequence[int], update_rate: float) -> Tensor:
    """The new bias in float64."""
    mean = Fraction(sum(counts), len(counts))
    steps = [(count < mean) - (count > mean) for count in counts]
    drift = Fraction(sum(steps), len(steps))
    return torch.tensor([b + update_rate * float(step - drift) for b, step in zip(bias, steps, strict=True)]).double()


def load(
    counts: Sequence[int],
    update_rate: float = 0.5,
    bias: Sequence[float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Case:
    """Counts and a bias; where none is given the bias is 1, 2, 3, ... quarters, whose mean is not 0."""
    values = [0.25 * (expert + 1) for expert in range(len(counts))] if bias is None else bias
    return {
        "expert_bias": torch.tensor(values, dtype=dtype),
        "counts": torch.tensor(counts),
        "update_rate": update_rate,
    }


def any_load(rng: random.Random) -> Iterator[Case]:
    for most in (3, 50, 1000):
        num_experts = rng.randint(2, 40)
        bias = torch.rand(num_experts, generator=generator(rng)) - 0.5
        counts = [rng.randint(0, most) for _ in range(num_experts)]
        yield load(counts, rng.choice([0.001, 0.01, 0.1]), bias.tolist())


prop = partial(Prop, drive=drive, judge=judge)

EXERCISE = Exercise(
    name="update_expert_bias",
    kind="function",
    properties=(
        prop(
            "up where an expert has less than the mean load, down where it has more, by a step of `update_rate`",
            weight=0.5,
            fixed=[
                load([3, 1]),
                load([0, 10]),
                load([4, 2, 0]),
                load([7, 5, 6, 6], 0.001, [0.0] * 4),
                load([100, 0, 51, 49, 50], 0.125),
                load([2**24, 2**24 + 1, 2**24 + 2]),  # float32 holds the middle one no more
            ],
        ),
        prop(
            "the bias as a whole does not drift, however many experts go up and down",
            weight=0.25,
            fixed=[
                load([10, 2, 2, 2]),
                load([5, 5, 4]),
                load([5, 5, 6]),
                load([9, 1, 2, 4], 0.125),
                load([0, 30, 0, 1, 2, 0, 3, 0], 0.001, [0.0] * 8),
            ],
            random=any_load,
        ),
        prop(
            "experts that all have as many stay as they are; the result is new and has the dtype of the bias",
            weight=0.25,
            judge=partial(judge, dtype=True),
            fixed=[
                load([5]),
                load([0, 0, 0]),
                load([4, 4, 4, 4], 0.001),
                load([3, 1], dtype=torch.float64),
                load([3, 0, 1, 0], dtype=torch.bfloat16),
                load([301, 300, 299, 300], dtype=torch.bfloat16),
            ],
        ),
    ),
)
