"""Checks of `dispatch_all_to_all`, against rows that are handed out one by one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from grader.checks.day3.ranks import counts_in_words, on_ranks, rows_given, rows_of, strided
from grader.checks.support import is_int_list
from grader.framework import Case, Exercise, Observations, Prop, expected_got, generator, short, tensor_problem

FIELDS = ("received", "received_counts", "sent", "got")


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """What each rank returned."""
    permuted, counts = rows_given(case, "permuted"), case["counts"]
    return on_ranks(
        len(counts), lambda rank, group: parts.dispatch_all_to_all(permuted[rank], counts[rank], group=group)
    )


def judge(case: Case, observations: Observations, fields: Sequence[str] = FIELDS) -> str | None:
    """What is called `fields` must be right on every rank."""
    if "problem" in observations:
        return str(observations["problem"])
    for rank, (expected, returned) in enumerate(zip(handed_out(case), observations["ranks"], strict=True)):
        if not isinstance(returned, list) or len(returned) != len(FIELDS):
            return (
                f"it must return received, received_counts, sent and got; on rank {rank} it returned {short(returned)}"
            )
        got = dict(zip(FIELDS, returned, strict=True))
        for field in fields:
            problem = problem_of(f"{field} of rank {rank}", expected[field], got[field])
            if problem:
                return problem
    return None


def problem_of(name: str, expected: Any, got: Any) -> str | None:
    """What is wrong with one of the four; counts may be integers of any size."""
    if isinstance(got, Tensor) and name.startswith("received_counts") and not got.is_floating_point():
        got = got.long()
    if isinstance(expected, Tensor):
        return tensor_problem(name, expected, got)
    return None if is_int_list(got) and got == expected else f"{name}: {expected_got(expected, got)}"


def handed_out(case: Case) -> list[dict[str, Any]]:
    """What each rank must get: every row is taken to the rank of its expert, rank by rank and expert by expert."""
    counts = [row.tolist() for row in case["counts"]]
    world_size, per_rank = len(counts), len(counts[0]) // len(counts)
    rows: list[list[Tensor]] = [[] for _ in counts]
    received_counts = [[[0] * per_rank for _ in counts] for _ in counts]
    sent = [[0] * world_size for _ in counts]
    for source, row in enumerate(counts):
        experts = [expert for expert, count in enumerate(row) for _ in range(count)]
        for at, expert in enumerate(experts):
            owner, local = divmod(expert, per_rank)
            rows[owner].append(case["permuted"][source][at])
            received_counts[owner][source][local] += 1
            sent[source][owner] += 1
    return [
        {
            "received": torch.stack(rows[rank]) if rows[rank] else case["permuted"][rank][:0],
            "received_counts": torch.tensor(received_counts[rank]),
            "sent": sent[rank],
            "got": [sent[source][rank] for source in range(world_size)],
        }
        for rank in range(world_size)
    ]


def describe(case: Case) -> str:
    """The counts, and what the rows are of."""
    rows = case["permuted"][0]
    kind = str(rows.dtype).removeprefix("torch.") + (", strided" if rows.stride(-1) > 1 or case.get("apart") else "")
    counts = counts_in_words([row.tolist() for row in case["counts"]], "counts of")
    return f"{counts}; rows of {rows.shape[1]} numbers ({kind})"


# ---------------------------------------------------------------- cases


def ranks(*counts: list[int], width: int = 2, dtype: torch.dtype = torch.float32) -> Case:
    """A case from the counts of each rank."""
    permuted = [rows_of(rank, sum(row), width, dtype) for rank, row in enumerate(counts)]
    return {"permuted": permuted, "counts": [torch.tensor(row) for row in counts]}


def with_strides(case: Case) -> Case:
    return {**case, "permuted": [strided(rows) for rows in case["permuted"]]}


def any_ranks(rng: random.Random, count: Callable[[], int]) -> Case:
    """Two to four ranks with up to three experts each."""
    world_size, per_rank, gen = rng.randint(2, 4), rng.randint(1, 3), generator(rng)
    counts = [[count() for _ in range(world_size * per_rank)] for _ in range(world_size)]
    permuted = [torch.rand(sum(row), rng.randint(1, 5), generator=gen) for row in counts]
    width = permuted[0].shape[1]
    return {
        "permuted": [torch.rand(len(rows), width, generator=gen) for rows in permuted],
        "counts": [torch.tensor(row) for row in counts],
    }


def any_full(rng: random.Random) -> Iterator[Case]:
    yield from (any_ranks(rng, lambda: rng.randint(1, 4)) for _ in range(4))


def any_sparse(rng: random.Random) -> Iterator[Case]:
    yield from (any_ranks(rng, lambda: rng.choice([0, 0, 0, 0, 1, 5])) for _ in range(4))


UNEVEN = ([1, 0, 2, 1], [0, 1, 1, 3])
THREE = ([2, 1, 1, 0, 3, 1], [1, 1, 0, 1, 2, 0], [0, 4, 2, 2, 1, 1])
FOUR = ([1, 2, 1, 1], [3, 1, 1, 2], [1, 1, 4, 1], [2, 1, 2, 1])

prop = partial(Prop, drive=drive, judge=judge, describe=describe)

EXERCISE = Exercise(
    name="dispatch_all_to_all",
    kind="function",
    properties=(
        prop(
            "every rank receives the rows of its own experts: first those of rank 0, then those of rank 1, and so on",
            weight=0.5,
            judge=partial(judge, fields=["received"]),
            fixed=[
                ranks([2, 1]),
                ranks([1, 1], [1, 1]),
                ranks(*UNEVEN),
                ranks([1, 2, 1, 2], [2, 1, 1, 3], width=3),  # each sends as many as it gets
                ranks(*THREE, width=1),
                ranks(*FOUR),
            ],
            random=any_full,
        ),
        prop(
            "received_counts says what each rank sent for each expert here; sent and got, how many rows went and came",
            weight=0.25,
            judge=partial(judge, fields=FIELDS[1:]),
            fixed=[
                ranks([2, 1]),
                ranks([1, 1], [1, 1]),
                ranks(*UNEVEN),
                ranks([1, 2, 1, 2], [2, 1, 1, 3], width=3),
                ranks(*THREE, width=1),
                ranks(*FOUR),
            ],
            random=any_full,
        ),
        prop(
            "a rank without a row, or whose experts nobody chose, takes part in every exchange",
            weight=0.25,
            fixed=[
                ranks([0, 0]),
                ranks([0, 0], [0, 0]),
                ranks([0, 0], [1, 2]),
                ranks([2, 1], [0, 0]),
                ranks([2, 0], [3, 0]),  # nobody chose what rank 1 has
                ranks([0, 2], [0, 3]),
                ranks([0, 1, 0, 2], [0, 0, 0, 0]),
                ranks([0, 0, 1, 1], [0, 0, 2, 1]),
                ranks([0, 0, 1], [0, 0, 0], [2, 0, 0]),  # rank 1 neither sends nor gets
                ranks([0, 0, 0, 0, 0, 7], [0] * 6, [0] * 6),
                ranks([0, 0, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0], [0, 0, 1, 0]),
            ],
            random=any_sparse,
        ),
        prop(
            "rows keep their dtype, and may be strided",
            weight=0.25,
            fixed=[
                ranks(*UNEVEN, dtype=torch.bfloat16),
                ranks(*THREE, dtype=torch.float16),
                ranks(*UNEVEN, dtype=torch.float64),
                with_strides(ranks([1, 2])),
                with_strides(ranks(*UNEVEN)),
                {**ranks(*UNEVEN), "apart": True},
                with_strides(ranks(*FOUR, width=3, dtype=torch.bfloat16)),
            ],
        ),
    ),
)
