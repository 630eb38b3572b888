"""Checks of `BlockAllocator`, against a list of owners kept beside it. Which block is handed out is never asserted."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

from grader.checks.oracles.ownership import OwnershipBooks
from grader.checks.support import (
    ANY_ERROR,
    count_of,
    cut,
    is_int_list,
    kept_outcome,
    kept_problem,
    owner_counts,
    steps_of,
)
from grader.framework import Case, Exercise, Observations, Prop, outcome_of, plain

Operation = list[Any]  # ["allocate", how many] or ["share" or "free", index among all blocks handed out so far]


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Run the operations and look at the pool after each; stop where an answer leaves no block to go on with.

    Another pool lies beside it, of which nothing is taken. What callers got is theirs, too.
    """
    allocator, other = (parts.BlockAllocator(case["num_blocks"]) for _ in range(2))
    handed_out: list[int] = []
    kept: list[list[Any]] = []
    steps = []
    for name, argument in case["operations"]:
        if name == "allocate":
            outcome = kept_outcome(partial(allocator.allocate, argument), kept)
            value = outcome.get("value", [])
            handed_out += value if is_int_list(value) else []
        elif argument < len(handed_out):
            method = allocator.share if name == "share" else allocator.free
            outcome = outcome_of(partial(method, handed_out[argument]), *ANY_ERROR)
        else:
            break
        steps.append([outcome, *state(allocator, case)])
    return {"steps": steps, "kept": plain(kept), "other": state(other, case)}


def state(allocator: Any, case: Case) -> list[Any]:
    """How many blocks are free, and the count of each."""
    return [plain(allocator.num_free), plain(owner_counts(allocator, case["num_blocks"]))]


def judge(case: Case, observations: Observations, watched: Collection[str] = ("num_free", "owners")) -> str | None:
    """Follow the operations with the books; an operation that is refused must leave the pool as it was.

    Args:
        watched: what is held against the books after the other operations.
    """
    books = OwnershipBooks(case["num_blocks"])
    before = unused = [case["num_blocks"], [0] * case["num_blocks"]]
    steps = observations["steps"]
    for number, (name, argument) in enumerate(case["operations"]):
        if number >= len(steps):
            return "the answer stopped before the last operation"
        outcome, *after = steps[number]
        problem = books.allocate(argument, outcome) if name == "allocate" else books.change(name, argument, outcome)
        if not problem and "raised" in outcome and after != before:
            problem = f"after the {outcome['raised']} the pool must be as it was; it has changed"
        if not problem and "num_free" in watched:
            problem = books.free_problem(after[0])
        if not problem and "owners" in watched:
            problem = books.owners_problem(after[1])
        if problem:
            return f"operation {number + 1}, {in_words([name, argument])}: {problem}"
        before = after
    if observations["other"] != unused:
        return "a second pool, of which nothing is taken, has changed; each pool has counts of its own"
    return kept_problem(observations["kept"])


def describe(case: Case) -> str:
    """The operations in words."""
    pool = f"a pool of {count_of(case['num_blocks'], 'block')}"
    return cut(f"{pool}: {', '.join(map(in_words, case['operations']))} (#0 is the first block handed out)")


def in_words(operation: Operation) -> str:
    """An operation as a learner reads it."""
    name, argument = operation
    return f"allocate({argument})" if name == "allocate" else f"{name} #{argument}"


# ---------------------------------------------------------------- cases


def pool(num_blocks: int, operations: str) -> Case:
    """A case; its operations as "allocate 2, share 0, free 0"."""
    return {"num_blocks": num_blocks, "operations": steps_of(operations)}


def misused(rng: random.Random) -> Iterator[Case]:
    for _ in range(2):
        count = rng.randint(2, 6)
        index = rng.randrange(count)
        again = ", ".join(f"{rng.choice(['share', 'free'])} {index}" for _ in range(3))
        yield pool(count + 1, f"allocate {count}, free {index}, {again}, allocate 2")


def mixed(rng: random.Random) -> Iterator[Case]:
    """Operations that are right to ask for, whichever blocks the answer hands out, and requests that are too large.

    The last ones free everything and take it again.
    """
    for num_blocks, length in ((3, 12), (8, 40), (16, 120)):
        owners: list[int] = []  # of each block handed out, in order; a block that is used again has a new entry
        operations: list[Operation] = []
        while len(operations) < length:
            in_use = [index for index, count in enumerate(owners) if count]
            name = rng.choice(["allocate", "share", "free", "free"])
            if name == "allocate":
                wanted = rng.randint(1, max(2, num_blocks // 3))
                owners += [1] * wanted if wanted <= num_blocks - len(in_use) else []
                operations.append([name, wanted])
            elif in_use:
                index = rng.choice(in_use)
                owners[index] += 1 if name == "share" else -1
                operations.append([name, index])
        operations += [["free", index] for index, count in enumerate(owners) for _ in range(count)]
        yield {"num_blocks": num_blocks, "operations": [*operations, ["allocate", num_blocks]]}


prop = partial(Prop, drive=drive, judge=judge, describe=describe, in_order=("operations",))

EXERCISE = Exercise(
    name="BlockAllocator",
    kind="class",
    properties=(
        prop(
            "allocate hands out different free blocks, each with one owner",
            weight=0.75,
            fixed=[
                pool(2, "allocate 1"),
                pool(4, "allocate 1, allocate 0, allocate 2"),
                pool(9, "allocate 5, allocate 3"),
            ],
        ),
        prop(
            "allocate gives all or none: the last block too, and when too few are free nothing changes",
            weight=0.75,
            judge=partial(judge, watched=["num_free"]),
            fixed=[
                pool(1, "allocate 1"),
                pool(1, "allocate 2, allocate 1"),
                pool(3, "allocate 2, allocate 2, allocate 1, allocate 1, allocate 0"),
                pool(12, "allocate 7, allocate 8, allocate 5, free 3, allocate 2, allocate 1"),
            ],
        ),
        prop(
            "a block returns to the pool with its last owner, and not before",
            weight=0.75,
            fixed=[
                pool(2, "allocate 1, free 0"),
                pool(3, "allocate 1, share 0, free 0, allocate 1, free 0"),
                pool(3, "allocate 2, free 1, free 0, allocate 2"),
                pool(5, "allocate 4, share 2, share 2, share 0, free 2, free 0, free 2, free 2, free 0, allocate 3"),
            ],
        ),
        prop(
            "a block that is free can be neither freed again nor shared, and trying changes nothing",
            weight=0.5,
            judge=partial(judge, watched=[]),
            fixed=[
                pool(2, "allocate 1, free 0, free 0"),
                pool(2, "allocate 1, free 0, share 0"),
                pool(2, "allocate 2, free 0, free 1, share 0, free 0"),
                pool(4, "allocate 3, free 0, free 0, share 0, free 2, free 2, allocate 3"),
            ],
            random=misused,
        ),
        prop(
            "over many operations no block is lost and none is handed out twice",
            weight=0.25,
            fixed=list(mixed(random.Random(1))),
            random=mixed,
        ),
    ),
)
