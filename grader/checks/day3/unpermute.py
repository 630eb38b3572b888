"""Checks of `unpermute`, against a loop over pairs in Python's floats."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from grader.checks.day3.pairs import DTYPES, drawn, form_problem, strided
from grader.checks.day3.pairs import with_nan as nan_rows
from grader.framework import Case, Exercise, Observations, Prop, plain, two_numbers

NAN, INF = float("nan"), float("inf")


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """The sums, as they came."""
    return plain(parts.unpermute(case["expert_out"], case["pairs"], case["topk_weights"]))


def drive_in_two_orders(parts: SimpleNamespace, case: Case) -> Observations:
    """The sums, and those of the same rows in another order, as lists of bits."""
    order = case["other_order"]
    first = parts.unpermute(case["expert_out"], case["pairs"], case["topk_weights"])
    other = parts.unpermute(case["expert_out"][order], case["pairs"][order], case["topk_weights"])
    return {"sums": plain(first), "others": plain(other)}


def judge(case: Case, sums: Observations) -> str | None:
    """Form first, then token by token; a sum may be off by the rounding of each product and each addition."""
    answers, weights = case["expert_out"], case["topk_weights"]
    num_tokens, top_k = weights.shape
    problem = form_problem("the result", sums, [num_tokens, answers.shape[1]], answers.dtype)
    if problem:
        return problem
    row_of = {pair: row for row, pair in enumerate(case["pairs"].tolist())}
    step = (top_k + 1) * torch.finfo(answers.dtype).eps
    for token in range(num_tokens):
        there = [k for k in range(top_k) if token * top_k + k in row_of]
        rows = [answers[row_of[token * top_k + k]].tolist() for k in there]
        for dim in range(answers.shape[1]):
            terms = [float(weights[token, k]) * row[dim] for k, row in zip(there, rows, strict=True)]
            expected, got = sum(terms), float(sums[token, dim])
            if expected != expected and got != got:
                continue
            if not abs(expected - got) <= step * sum(map(abs, terms)):
                wanted, came = two_numbers(float(expected), got)
                return f"the sum of token {token} is wrong, first at {dim}: expected {wanted}, got {came}"
    return None


def judge_bits(case: Case, observations: Observations) -> str | None:
    """Right, and the same bits whatever the order of the rows."""
    sums, others = observations["sums"], observations["others"]
    problem = judge(case, sums)
    if problem:
        return problem
    if not isinstance(others, Tensor) or others.shape != sums.shape or not torch.equal(sums, others):
        return "the same rows in another order give another sum; it must be the same to the last bit"
    return None


def describe(case: Case) -> str:
    """The pairs and weights where they are few, and what is odd about the answers."""
    answers, pairs, weights = case["expert_out"], case["pairs"], case["topk_weights"]
    shown = f"{pairs.tolist()}" if len(pairs) <= 30 else f"of {len(pairs)} rows"
    text = f"{len(weights)} tokens, K={weights.shape[1]}, pairs = {shown}"
    text += "" if pairs.dtype == torch.int64 else " (int32)"
    if weights.numel() <= 16:
        text += f", topk_weights = {[[float(f'{value:.3g}') for value in row] for row in weights.tolist()]}"
    dtype = str(answers.dtype).removeprefix("torch.")
    notes = "" if answers.is_contiguous() else f" with strides {list(answers.stride())}"
    few = f" {[[float(f'{v:.3g}') for v in row] for row in answers.tolist()]}" if answers.numel() <= 16 else ""
    return f"{text}, expert_out {list(answers.shape)} ({dtype}){notes}{few}"


def case(num_tokens: int, top_k: int, pairs: list[int], hidden: int = 3, dtype: str = "float32", seed: int = 1) -> Case:
    """Answers to these pairs, and weights between 0.1 and 1 that do not add up to 1."""
    weights = drawn((num_tokens, top_k), seed, spread=0.45) + 0.55
    answers = drawn((len(pairs), hidden), seed + 1, dtype)
    return {
        "expert_out": answers,
        "pairs": torch.tensor(pairs, dtype=torch.int64),
        "topk_weights": weights.to(answers.dtype),
    }


def changed(case: Case, **changes: Any) -> Case:
    """A case with other tensors."""
    return {**case, **changes}


def left_out_weights(case: Case, value: float) -> Case:
    """The weights of the pairs that were left out replaced."""
    weights = torch.full_like(case["topk_weights"], value).flatten()
    weights[case["pairs"]] = case["topk_weights"].flatten()[case["pairs"]]
    return changed(case, topk_weights=weights.view(case["topk_weights"].shape))


def ill_summed(num_tokens: int, top_k: int, pairs: list[int], other: list[int], dtype: str = "float32") -> Case:
    """Terms of which two cancel each other, so that others are lost or not; `other` is another order of the rows."""
    sizes = torch.tensor([[2.0**30, 1.0, -(2.0**30), 0.0625][pair % top_k % 4] for pair in pairs])
    answers = sizes[:, None] * torch.tensor([1.0, 1.5, -2.0, 3.0])
    return {
        "expert_out": answers.to(DTYPES[dtype]),
        "pairs": torch.tensor(pairs),
        "topk_weights": torch.full((num_tokens, top_k), 0.25, dtype=DTYPES[dtype]),
        "other_order": torch.tensor(other),
    }


def any_pairs(rng: random.Random, left_out: bool) -> Iterator[Case]:
    for dtype in DTYPES:
        num_tokens, top_k = rng.randint(1, 12), rng.randint(1, 5)
        pairs = rng.sample(range(num_tokens * top_k), num_tokens * top_k)
        pairs = pairs[: rng.randint(0, len(pairs))] if left_out else pairs
        one = case(num_tokens, top_k, pairs, rng.randint(1, 9), dtype, rng.getrandbits(32))
        yield left_out_weights(one, rng.choice((NAN, INF, 7.0))) if left_out else one


def any_orders(rng: random.Random) -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):  # in float16 2**30 is infinite
        num_tokens, top_k = rng.randint(1, 6), rng.randint(3, 8)
        pairs = rng.sample(range(num_tokens * top_k), num_tokens * top_k)
        yield ill_summed(num_tokens, top_k, pairs, rng.sample(range(len(pairs)), len(pairs)), dtype)


SMALL = [1, 2, 3, 5, 0, 4]
BY_EXPERT = [1, 5, 8, 11, 4, 0, 3, 6, 9, 2, 7, 10]
prop = partial(Prop, drive=drive, judge=judge, describe=describe)

EXERCISE = Exercise(
    name="unpermute",
    kind="function",
    properties=(
        prop(
            "each token gets the sum of its answers, every one times its own weight",
            weight=0.75,
            fixed=[
                case(1, 1, [0], hidden=1),
                case(1, 2, [1, 0], hidden=1),
                case(2, 1, [1, 0], hidden=2),
                case(3, 2, SMALL),
                case(4, 3, BY_EXPERT, hidden=5),
                case(6, 2, list(range(12)), hidden=2),
                case(5, 2, [3, 0, 9, 4, 7, 2, 1, 8, 5, 6], dtype="bfloat16"),
            ],
            random=partial(any_pairs, left_out=False),
        ),
        prop(
            "a pair that was left out adds nothing, whatever its weight, and a token without an answer gets 0",
            weight=0.25,
            fixed=[
                case(2, 2, [2, 1, 0]),
                case(3, 2, [3, 0]),
                left_out_weights(case(2, 2, [2, 1, 0]), NAN),
                left_out_weights(case(3, 3, [7, 0]), INF),
                case(3, 2, [3, 0], dtype="bfloat16"),
                case(2, 2, []),
                left_out_weights(case(2, 2, []), NAN),
            ],
            random=partial(any_pairs, left_out=True),
        ),
        prop(
            "a token's sum is the same to the last bit, wherever its rows stand among the others",
            weight=0.25,
            drive=drive_in_two_orders,
            judge=judge_bits,
            fixed=[
                ill_summed(1, 3, [0, 1, 2], [2, 1, 0]),
                ill_summed(1, 4, [0, 1, 2, 3], [3, 1, 0, 2]),
                ill_summed(4, 3, BY_EXPERT, list(range(11, -1, -1))),
                ill_summed(4, 3, BY_EXPERT, list(range(11, -1, -1)), "bfloat16"),
                ill_summed(2, 6, BY_EXPERT, list(range(11, -1, -1)), "bfloat16"),
            ],
            random=any_orders,
        ),
        prop(
            "no tokens, any dtype and strides, and NaN in one answer stays with its token",
            weight=0.25,
            fixed=[
                case(0, 2, []),
                changed(case(3, 2, SMALL), pairs=torch.tensor(SMALL, dtype=torch.int32)),
                case(3, 2, SMALL, dtype="bfloat16"),
                case(3, 2, SMALL, dtype="float16"),
                changed(case(3, 2, SMALL), expert_out=strided(drawn((6, 4), 5))),
                changed(case(3, 2, SMALL), topk_weights=strided(drawn((3, 2), 6))),
                changed(case(3, 2, SMALL), expert_out=nan_rows(drawn((6, 4), 7), 2)),
                changed(
                    case(3, 2, [3, 0, 4]), expert_out=nan_rows(drawn((3, 4), 8), 0, 2)
                ),  # the first and the last row
            ],
        ),
    ),
)
