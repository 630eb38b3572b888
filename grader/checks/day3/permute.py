"""Checks of `permute`: each row is one pair's token, and the pairs are counted one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from grader.checks.day3.pairs import DTYPES, drawn, drawn_ids, form_problem, ids_problem, strided, tensors_problem
from grader.checks.day3.pairs import with_nan as nan_rows
from grader.framework import Case, Exercise, Observations, Prop, expected_got, plain


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """The three tensors, as they came, and whether the rows are memory of the argument's."""
    x = case["x"]
    answer = parts.permute(x, case["topk_ids"], case["num_experts"])
    first = answer[0] if isinstance(answer, tuple | list) and answer else None
    shared = isinstance(first, Tensor) and first.numel() > 0 and first.data_ptr() == x.data_ptr()
    return {"answer": plain(answer), "shared": shared}


def judge(case: Case, observations: Observations, counts_alone: bool = False) -> str | None:
    """The counts, or all of it."""
    experts, answer = case["topk_ids"].flatten().tolist(), observations["answer"]
    problem = tensors_problem(answer, ("permuted", "pairs", "counts"))
    if problem:
        return problem
    permuted, pairs, counts = answer
    there = [pair for pair, expert in enumerate(experts) if 0 <= expert < case["num_experts"]]
    if counts_alone:
        return counts_problem(counts, [experts[pair] for pair in there], case["num_experts"])
    if observations["shared"]:
        return "permuted must be new memory; it is that of x"
    return pairs_problem(pairs, there, experts) or rows_problem(permuted, pairs.tolist(), case)


def counts_problem(got: Any, experts: list[int], num_experts: int) -> str | None:
    """What is wrong with the number of rows of each expert."""
    expected = [experts.count(expert) for expert in range(num_experts)]
    problem = ids_problem("counts", got, [num_experts])
    if problem or got.tolist() == expected:
        return problem
    return f"counts: {expected_got(expected, got.tolist())}"


def pairs_problem(got: Any, there: list[int], experts: list[int]) -> str | None:
    """Whether not each pair that is there stands in it once, in the order of the experts."""
    problem = ids_problem("pairs", got, [len(there)])
    if problem:
        return problem
    pairs = got.tolist()
    if sorted(pairs) != there:
        return f"pairs must hold each of these once, in any order: {expected_got(there, sorted(pairs))} when sorted"
    expected, came = sorted(experts[pair] for pair in there), [experts[pair] for pair in pairs]
    return None if came == expected else f"the experts of `pairs`, row by row: {expected_got(expected, came)}"


def rows_problem(got: Any, pairs: list[int], case: Case) -> str | None:
    """Whether not each row is a copy of its pair's token, bit by bit."""
    x, top_k = case["x"], case["topk_ids"].shape[1]
    problem = form_problem("permuted", got, [len(pairs), x.shape[1]], x.dtype)
    if problem:
        return problem
    for row, pair in enumerate(pairs):
        token = x[pair // top_k]
        if not bool(torch.where(token.isnan(), got[row].isnan(), got[row] == token).all()):
            return f"permuted: row {row} is not the token of the pair that `pairs` gives it"
    return None


def describe(case: Case) -> str:
    """The ids where they are few, and what is odd about x."""
    x, ids = case["x"], case["topk_ids"]
    shown = f"{ids.tolist()}" if ids.numel() <= 40 else f"of shape {list(ids.shape)}"
    notes = [f"x is {str(x.dtype).removeprefix('torch.')} of shape {list(x.shape)}"]
    notes += [] if x.is_contiguous() else [f"strides {list(x.stride())}"]
    notes += [f"NaN in tokens {x.isnan().any(1).nonzero().flatten().tolist()}"] if bool(x.isnan().any()) else []
    kind = "" if ids.dtype == torch.int64 else " (int32)"
    return f"topk_ids = {shown}{kind}, num_experts={case['num_experts']}, {', '.join(notes)}"


def case(ids: list[list[int]] | Tensor, num_experts: int, hidden: int = 3, dtype: str = "float32") -> Case:
    """Tokens for these ids [T, K]."""
    topk_ids = ids if isinstance(ids, Tensor) else torch.tensor(ids)
    return {"x": drawn((len(topk_ids), hidden), 1, dtype), "topk_ids": topk_ids, "num_experts": num_experts}


def changed(case: Case, **changes: Any) -> Case:
    """A case with other tensors."""
    return {**case, **changes}


def any_ids(rng: random.Random) -> Iterator[Case]:
    for _ in range(4):
        num_experts = rng.choice((1, 3, 8, 64))
        top_k = rng.randint(1, min(4, num_experts))
        favorites = rng.choice((top_k, num_experts))  # few experts take all, or none does
        ids = torch.tensor(drawn_ids(rng, rng.randint(1, 20), top_k, favorites))
        yield case(ids, num_experts, rng.randint(1, 9), rng.choice(list(DTYPES)))


def any_left_out(rng: random.Random) -> Iterator[Case]:
    for drawn_case in any_ids(rng):
        ids, num_experts = drawn_case["topk_ids"], drawn_case["num_experts"]
        for pair in rng.sample(range(ids.numel()), rng.randint(1, ids.numel())):
            ids.view(-1)[pair] = rng.choice((-1, -num_experts, num_experts, 2 * num_experts + 1))
        yield drawn_case


SMALL = [[2, 0], [0, 1], [2, 1]]
FIVE = [[3, 0, 4], [1, 3, 0], [0, 3, 1], [3, 0, 1], [4, 3, 0]]
LONG = torch.tensor([[(7 * token + 3 * k) % 6 for k in range(2)] for token in range(21)])

prop = partial(Prop, drive=drive, judge=judge, describe=describe)

EXERCISE = Exercise(
    name="permute",
    kind="function",
    properties=(
        prop(
            "each pair has one row, a copy of its token, and the rows are in the order of the experts",
            weight=0.75,
            fixed=[
                case([[1], [0]], 2),
                case([[1, 0]], 2),
                case(SMALL, 3),
                case(FIVE, 5, hidden=4),
                case([[5, 2]] * 4, 7, hidden=1),
                case([[0]] * 3, 1),
                case(LONG, 6, hidden=5, dtype="bfloat16"),
                case([[129, 3], [77, 129]], 130),
            ],
            random=any_ids,
        ),
        prop(
            "counts says how many rows each of the E experts has, 0 for one that nobody chose",
            weight=0.25,
            judge=partial(judge, counts_alone=True),
            fixed=[
                case([[1], [0]], 2),
                case(SMALL, 3),
                case([[0, 1, 2]], 3),
                case([[1, 0], [1, 2]], 5),
                case([[5, 2]] * 4, 7),
                case([[1, -1], [-2, 0], [3, 2], [1, 7]], 3),
                case(torch.full((2, 2), -1), 3),
                case(torch.zeros(0, 2, dtype=torch.int64), 4),
            ],
            random=any_left_out,
        ),
        prop(
            "a pair whose id is not one of 0 to E - 1 has no row",
            weight=0.25,
            fixed=[
                case([[0], [-1]], 2),
                case([[0], [2], [1]], 2),
                case([[0, 1], [-1, -1]], 2),
                case([[2, -1], [-1, 0], [1, 2]], 3, dtype="bfloat16"),
                case([[2, 3], [7, 0], [-3, 2], [-1, 1]], 3),
                case(torch.full((2, 2), -1), 3),
                case([[4, 5]], 4),
            ],
            random=any_left_out,
        ),
        prop(
            "no tokens, any dtype and strides, and NaN in one token stays there",
            weight=0.25,
            fixed=[
                case(torch.zeros(0, 2, dtype=torch.int64), 4),
                case(SMALL, 3, dtype="bfloat16"),
                case(torch.tensor(SMALL, dtype=torch.int32), 3, dtype="float16"),
                changed(case(SMALL, 3), x=strided(drawn((3, 4), 2)), topk_ids=torch.tensor(SMALL).T.contiguous().T),
                changed(case(SMALL, 3), x=nan_rows(drawn((3, 4), 3), 1)),
                changed(case(FIVE, 5), x=nan_rows(strided(drawn((5, 3), 4, "bfloat16")), 0, 3)),
            ],
        ),
    ),
)
