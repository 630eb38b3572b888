"""Checks of `drop_over_capacity`, against places that are given away pair by pair."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from grader.checks.support import count_of
from grader.framework import Case, Exercise, Observations, Prop, plain, short


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """The ids that it returns, and whether they share memory with those given."""
    kept = parts.drop_over_capacity(case["topk_ids"], case["num_experts"], case["capacity"])
    memory = case["topk_ids"].untyped_storage().data_ptr()
    return {"kept": plain(kept), "shared": isinstance(kept, Tensor) and kept.untyped_storage().data_ptr() == memory}


def kept_ids(case: Case) -> list[list[int]]:
    """First come, first served."""
    taken: Counter[int] = Counter()
    rows = case["topk_ids"].tolist()
    for row in rows:
        for place, expert in enumerate(row):
            taken[expert] += expert >= 0
            if taken[expert] > case["capacity"]:
                row[place] = -1
    return rows


def judge(case: Case, observations: Observations) -> str | None:
    """Pair by pair, in the order in which they ask."""
    kept = observations["kept"]
    if not is_ids(case, kept):
        return f"expected a tensor of integers of shape {list(case['topk_ids'].shape)}, got {short(kept)}"
    expected, given = torch.tensor(kept_ids(case), dtype=torch.int64).view(kept.shape), case["topk_ids"]
    wrong = (kept != expected).nonzero().tolist()
    if not wrong:
        return None
    token, k = wrong[0]
    wanted, got = int(expected[token, k]), int(kept[token, k])
    why = "is not to be changed" if wanted == given[token, k] else f"finds expert {given[token, k]} full"
    counts = f"{count_of(int((expected != given).sum()), 'pair')} of the batch should be dropped"
    text = f"pair {k} of token {token} {why}: expected {wanted}, got {got}"
    return f"{text}; {counts}, {int(((kept == -1) & (given != -1)).sum())} dropped"


def is_ids(case: Case, kept: Any) -> bool:
    """Whether it is a tensor of integers of the shape that was given."""
    if not isinstance(kept, Tensor) or kept.is_floating_point() or kept.dtype is torch.bool:
        return False
    return kept.shape == case["topk_ids"].shape


def judge_copy(case: Case, observations: Observations) -> str | None:
    """The dtype, and whose memory it is; a wrong answer earns nothing here."""
    problem = judge(case, observations)
    if problem:
        return problem
    dtype, got = case["topk_ids"].dtype, observations["kept"].dtype
    if got != dtype:
        return f"expected ids in the dtype of topk_ids, {dtype}, got {got}"
    return "expected a copy; what it returns shares memory with topk_ids" if observations["shared"] else None


def make(ids: list[list[int]], num_experts: int, capacity: int, dtype: torch.dtype = torch.int64) -> Case:
    """A case with the ids written out."""
    return {"topk_ids": torch.tensor(ids, dtype=dtype), "num_experts": num_experts, "capacity": capacity}


def draw(rng: random.Random, tokens: int, top_k: int, num_experts: int, capacity: int, left_out: float = 0) -> Case:
    """A case with K different ids for each token, of which a share is -1."""
    rows = [rng.sample(range(num_experts), top_k) for _ in range(tokens)]
    rows = [[-1 if rng.random() < left_out else expert for expert in row] for row in rows]
    ids = torch.tensor(rows, dtype=torch.int64).view(tokens, top_k)
    return {"topk_ids": ids, "num_experts": num_experts, "capacity": capacity}


def turned(case: Case) -> Case:
    """The same with ids that lie in memory column by column."""
    return {**case, "topk_ids": case["topk_ids"].T.contiguous().T}


def any_ids(rng: random.Random, left_out: float = 0) -> Iterator[Case]:
    for _ in range(4):
        num_experts, tokens = rng.choice((2, 4, 16)), rng.randint(1, 40)
        top_k = rng.randint(1, min(num_experts, 8))
        yield draw(rng, tokens, top_k, num_experts, max(1, tokens * top_k // num_experts), left_out)


prop = partial(Prop, drive=drive, judge=judge)

EXERCISE = Exercise(
    name="drop_over_capacity",
    kind="function",
    properties=(
        prop(
            "an expert takes the pairs that ask first, token by token, and the others are -1",
            weight=0.75,
            fixed=[
                make([[0]], 1, 1),
                make([[0], [0], [0]], 1, 1),
                make([[0, 1], [0, 1], [1, 0]], 2, 2),
                make([[0, 1], [2, 0], [1, 0], [0, 2]], 3, 1),
                make([[1], [0], [1], [1], [0], [0]], 2, 2),
                make([[2, 1], [1, 2], [0, 2], [2, 0]], 3, 2),
                turned(make([[0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 1, 2]], 3, 2)),
                draw(random.Random(1), 24, 4, 8, 6),
            ],
            random=any_ids,
        ),
        prop(
            "a pair that is -1 already takes no place and stays -1",
            weight=0.25,
            fixed=[
                make([[-1]], 1, 1),
                make([[-1], [0]], 1, 1),
                make([[-1, 1], [-1, 1], [1, -1]], 2, 2),
                make([[-1, -1], [1, -1], [1, 0], [1, 0]], 2, 2),
                draw(random.Random(2), 12, 3, 5, 4, left_out=0.3),
            ],
            random=partial(any_ids, left_out=0.3),
        ),
        prop(
            "what it returns is a copy in the same dtype, also where nothing is dropped",
            weight=0.25,
            judge=judge_copy,
            fixed=[
                make([[0]], 1, 1),
                make([[0, 1], [1, 0]], 2, 2, torch.int32),
                make([[0], [0]], 1, 1, torch.int32),
            ],
        ),
        prop(
            "T may be 0, and an expert may have nobody or room for all",
            weight=0.25,
            fixed=[
                draw(random.Random(1), 0, 2, 4, 1),
                make([[3], [3], [3]], 8, 100),
                make([[7], [7], [7]], 8, 1),
            ],
        ),
    ),
)
