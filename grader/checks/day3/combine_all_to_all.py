"""Checks of `combine_all_to_all`, against answers that are carried home one by one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor

from grader.checks.day3.ranks import counts_in_words, on_ranks, rows_given, rows_of, strided
from grader.framework import Case, Exercise, Observations, Prop, generator, tensor_problem


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """What each rank returned."""
    out, sent, got = rows_given(case, "expert_out"), case["sent"], case["got"]
    return on_ranks(
        len(sent), lambda rank, group: parts.combine_all_to_all(out[rank], sent[rank], got[rank], group=group)
    )


def judge(case: Case, observations: Observations) -> str | None:
    """Every rank must have its own answers."""
    if "problem" in observations:
        return str(observations["problem"])
    for rank, (expected, returned) in enumerate(zip(carried_home(case), observations["ranks"], strict=True)):
        problem = tensor_problem(f"what rank {rank} returned", expected, returned)
        if problem:
            return problem
    return None


def carried_home(case: Case) -> list[Tensor]:
    """Each answer is taken to the rank of its row; the answers of one rank come after those of the rank before."""
    home: list[list[Tensor]] = [[] for _ in case["sent"]]
    for answers, got in zip(case["expert_out"], case["got"], strict=True):
        owners = [rank for rank, count in enumerate(got) for _ in range(count)]
        for answer, owner in zip(answers, owners, strict=True):
            home[owner].append(answer)
    return [torch.stack(rows) if rows else case["expert_out"][0][:0] for rows in home]


def describe(case: Case) -> str:
    """How many rows went where, and what the answers are of."""
    out = case["expert_out"][0]
    kind = str(out.dtype).removeprefix("torch.") + (", strided" if out.stride(-1) > 1 or case.get("apart") else "")
    return f"{counts_in_words(case['sent'], 'sent of')}; answers of {out.shape[1]} numbers ({kind})"


# ---------------------------------------------------------------- cases


def ranks(*sent: list[int], width: int = 2, dtype: torch.dtype = torch.float32) -> Case:
    """A case from what each rank has sent to each."""
    got = [list(column) for column in zip(*sent, strict=True)]
    expert_out = [rows_of(rank, sum(row), width, dtype) for rank, row in enumerate(got)]
    return {"expert_out": expert_out, "sent": [list(row) for row in sent], "got": got}


def with_strides(case: Case) -> Case:
    return {**case, "expert_out": [strided(rows) for rows in case["expert_out"]]}


def any_ranks(rng: random.Random, count: Callable[[], int]) -> Case:
    """Two to four ranks, with any numbers as answers."""
    world_size, width, gen = rng.randint(2, 4), rng.randint(1, 5), generator(rng)
    case = ranks(*([count() for _ in range(world_size)] for _ in range(world_size)), width=width)
    return {**case, "expert_out": [torch.rand(rows.shape, generator=gen) for rows in case["expert_out"]]}


def any_full(rng: random.Random) -> Iterator[Case]:
    yield from (any_ranks(rng, lambda: rng.randint(1, 5)) for _ in range(4))


def any_sparse(rng: random.Random) -> Iterator[Case]:
    yield from (any_ranks(rng, lambda: rng.choice([0, 0, 0, 1, 5])) for _ in range(4))


prop = partial(Prop, drive=drive, judge=judge, describe=describe)

EXERCISE = Exercise(
    name="combine_all_to_all",
    kind="function",
    properties=(
        prop(
            "each rank gets the answers to its own rows, in the order in which it sent them",
            weight=0.5,
            fixed=[
                ranks([2]),
                ranks([1, 1], [1, 1]),
                ranks([1, 3], [1, 2]),
                ranks([1, 2], [2, 1]),  # as many to each as from it
                ranks([2, 1], [1, 2], width=3),
                ranks([1, 3, 2], [2, 1, 1], [1, 1, 4], width=1),
                ranks([1, 2, 1], [1, 1, 2], [2, 1, 1]),  # as many rows as answers, and from others
                ranks([1, 2, 1, 3], [4, 1, 1, 2], [1, 1, 2, 1], [2, 3, 1, 1], dtype=torch.bfloat16),
                ranks([1, 3], [1, 2], dtype=torch.float64),
                with_strides(ranks([2])),
                with_strides(ranks([1, 3], [1, 2], dtype=torch.float16)),
                {**ranks([1, 3], [1, 2]), "apart": True},
            ],
            random=any_full,
        ),
        prop(
            "a rank that has no answer to send, or none to get, takes part in the exchange",
            weight=0.25,
            fixed=[
                ranks([0]),
                ranks([0, 0], [0, 0]),
                ranks([0, 0], [1, 2]),
                ranks([2, 1], [0, 0]),
                ranks([2, 0], [3, 0]),
                ranks([0, 2], [0, 3]),
                ranks([0, 0, 1], [0, 0, 0], [2, 0, 0]),
                ranks([0, 0, 7], [0, 0, 0], [0, 0, 0]),
                ranks([0, 0, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0], [0, 0, 1, 0]),
            ],
            random=any_sparse,
        ),
    ),
)
