"""Checks of `BlockAllocator`, against a list of owners kept beside it. Which block is handed out is never asserted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

from grader.checks.oracles.ownership import OwnershipBooks
from grader.checks.support import ANY_ERROR, count_of, cut, is_int_list, owner_counts
from grader.framework import Case, Exercise, Observations, Property, outcome_of, plain

Operation = list[Any]  # ["allocate", how many] or ["share" or "free", index among all blocks handed out so far]


class OperationsProperty(Property):
    """Runs operations and looks at the pool after each. An operation that is refused must leave it as it was.

    Attributes:
        watches: what is held against the books after the other operations.
    """

    in_order = ("operations",)
    watches: ClassVar[frozenset[str]] = frozenset()

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Stops early where an answer leaves no block to go on with; the judge has seen why by then."""
        allocator = parts.BlockAllocator(case["num_blocks"])
        handed_out: list[int] = []
        steps = []
        for name, argument in case["operations"]:
            if name == "allocate":
                outcome = outcome_of(partial(allocator.allocate, argument), *ANY_ERROR)
                value = outcome.get("value", [])
                handed_out += value if is_int_list(value) else []
            elif argument < len(handed_out):
                method = allocator.share if name == "share" else allocator.free
                outcome = outcome_of(partial(method, handed_out[argument]), *ANY_ERROR)
            else:
                break
            counts = owner_counts(allocator, case["num_blocks"])
            steps.append([outcome, plain(allocator.num_free), plain(counts)])
        return steps

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Follow the operations with the books."""
        books = OwnershipBooks(case["num_blocks"])
        before = [case["num_blocks"], [0] * case["num_blocks"]]
        for number, (name, argument) in enumerate(case["operations"]):
            if number >= len(observations):
                return "the answer stopped before the last operation"
            outcome, *after = observations[number]
            problem = books.allocate(argument, outcome) if name == "allocate" else books.change(name, argument, outcome)
            if not problem and "raised" in outcome and after != before:
                problem = f"after the {outcome['raised']} the pool must be as it was; it has changed"
            if not problem and "num_free" in self.watches:
                problem = books.free_problem(after[0])
            if not problem and "owners" in self.watches:
                problem = books.owners_problem(after[1])
            if problem:
                return f"operation {number + 1}, {in_words([name, argument])}: {problem}"
            before = after
        return None

    def describe(self, case: Case) -> str:
        """The operations in words."""
        pool = f"a pool of {count_of(case['num_blocks'], 'block')}"
        return cut(f"{pool}: {', '.join(map(in_words, case['operations']))} (#0 is the first block handed out)")


def in_words(operation: Operation) -> str:
    """An operation as a learner reads it."""
    name, argument = operation
    return f"allocate({argument})" if name == "allocate" else f"{name} #{argument}"


def pool(num_blocks: int, *operations: Operation) -> Case:
    """A case."""
    return {"num_blocks": num_blocks, "operations": list(operations)}


def allocate(num_blocks: int) -> Operation:
    """Ask for blocks."""
    return ["allocate", num_blocks]


def share(index: int) -> Operation:
    """Add an owner to the block handed out as number `index`, from 0."""
    return ["share", index]


def free(index: int) -> Operation:
    """Drop an owner of the block handed out as number `index`, from 0."""
    return ["free", index]


class HandsOutBlocks(OperationsProperty):
    """Allocation in a pool with blocks to spare."""

    sentence = "allocate hands out different free blocks, each with one owner"
    weight = 0.75
    watches = frozenset({"num_free", "owners"})

    def cases(self, rng: random.Random) -> Iterator[Case]:
        """One block, several calls, and a call for nothing."""
        yield pool(2, allocate(1))
        yield pool(4, allocate(1), allocate(0), allocate(2))
        for _ in range(3):
            wanted = [rng.randint(0, 5) for _ in range(rng.randint(2, 5))]
            yield pool(sum(wanted) + 1, *map(allocate, wanted))


class AllOrNone(OperationsProperty):
    """Allocation up to the last block and beyond."""

    sentence = "allocate gives all or none: the last block too, and when too few are free nothing changes"
    weight = 0.75
    watches = frozenset({"num_free"})

    def cases(self, rng: random.Random) -> Iterator[Case]:
        """Exhausted exactly, then by one."""
        yield pool(1, allocate(1))
        yield pool(1, allocate(1), allocate(1))
        yield pool(1, allocate(2), allocate(1))
        yield pool(3, allocate(2), allocate(2), allocate(1), allocate(1), allocate(0))
        for _ in range(3):
            num_blocks = rng.randint(4, 16)
            first = rng.randint(1, num_blocks - 1)
            left = num_blocks - first
            yield pool(num_blocks, allocate(first), allocate(left + rng.randint(1, 3)), allocate(left))


class LastOwnerFrees(OperationsProperty):
    """Sharing and freeing, in a pool with blocks to spare."""

    sentence = "a block returns to the pool with its last owner, and not before"
    weight = 0.75
    watches = frozenset({"num_free", "owners"})

    def cases(self, rng: random.Random) -> Iterator[Case]:
        """One owner, two owners, and blocks that are used again."""
        yield pool(2, allocate(1), free(0))
        yield pool(3, allocate(1), share(0), free(0), allocate(1), free(0))
        yield pool(3, allocate(2), free(1), free(0), allocate(2))
        for _ in range(3):
            count = rng.randint(2, 5)
            shares = [share(rng.randrange(count)) for _ in range(rng.randint(1, 6))]
            frees = [free(index) for _, index in shares] + [free(index) for index in range(count)]
            rng.shuffle(frees)
            yield pool(count + 1, allocate(count), *shares, *frees, allocate(count))


class RefusesFreeBlocks(OperationsProperty):
    """Misuse by a caller."""

    sentence = "a block that is free can be neither freed again nor shared, and trying changes nothing"
    weight = 0.5

    def cases(self, rng: random.Random) -> Iterator[Case]:
        """A double free, a share of a free block, and a pool that still works after either."""
        yield pool(2, allocate(1), free(0), free(0))
        yield pool(2, allocate(1), free(0), share(0))
        yield pool(3, allocate(2), free(0), free(0), share(0), free(1), free(1), allocate(2))
        for _ in range(2):
            count = rng.randint(2, 6)
            index = rng.randrange(count)
            again = [rng.choice([share, free])(index) for _ in range(3)]
            yield pool(count + 1, allocate(count), free(index), *again, allocate(2))


class Conserved(OperationsProperty):
    """Everything together, for a while."""

    sentence = "over many operations no block is lost and none is handed out twice"
    weight = 0.25
    watches = frozenset({"num_free", "owners"})

    def cases(self, rng: random.Random) -> Iterator[Case]:
        """Random operations on blocks that are in use, and requests that are sometimes too large."""
        for num_blocks, length in ((3, 12), (8, 40), (16, 120)):
            yield pool(num_blocks, *random_operations(rng, num_blocks, length))


def random_operations(rng: random.Random, num_blocks: int, length: int) -> list[Operation]:
    """Operations that are right to ask for, whichever blocks the answer hands out; the last ones free everything."""
    owners: list[int] = []  # of each block handed out, in order; a block that is used again has a new entry
    operations: list[Operation] = []
    while len(operations) < length:
        in_use = [index for index, count in enumerate(owners) if count]
        name = rng.choice(["allocate", "share", "free", "free"])
        if name == "allocate":
            wanted = rng.randint(1, max(2, num_blocks // 3))
            if wanted <= num_blocks - len(in_use):
                owners += [1] * wanted
            operations.append(allocate(wanted))
        elif in_use:
            index = rng.choice(in_use)
            owners[index] += 1 if name == "share" else -1
            operations.append([name, index])
    for index, count in enumerate(owners):
        operations += [free(index)] * count
    return [*operations, allocate(num_blocks)]


EXERCISE = Exercise(
    name="BlockAllocator",
    day=1,
    kind="class",
    properties=(HandsOutBlocks(), AllOrNone(), LastOwnerFrees(), RefusesFreeBlocks(), Conserved()),
)
