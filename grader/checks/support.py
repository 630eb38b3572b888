"""What the checks of several exercises share: pools with their blocks in any order, and careful reading of answers."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

from grader.framework import MAX_CASE_TEXT, outcome_of, plain, short
from tinyllm.kv_cache.allocator import BlockAllocator

#: Errors that a wrong answer may raise where the right one raises a certain error, or none.
ANY_ERROR = (MemoryError, ValueError, RuntimeError, AssertionError)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a plain value is a number; a truth value is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_int_list(value: Any) -> TypeGuard[list[int]]:
    """Whether a plain value is a list of integers."""
    return isinstance(value, list) and all(type(item) is int for item in value)


def pool_of(order: Sequence[int]) -> BlockAllocator:
    """The reference allocator of `len(order)` blocks, which hands them out in this order."""
    allocator = BlockAllocator(len(order))
    allocator.free_ids = deque(order)
    return allocator


def owner_counts(allocator: Any, num_blocks: int) -> list[Any]:
    """The reference count of every block of a pool."""
    return [allocator.ref_count(block_id) for block_id in range(num_blocks)]


def steps_of(text: str) -> list[list[Any]]:
    """Steps that are written as "append a 2, release a": in each the words, and numbers as such."""
    return [[int(word) if word.isdigit() else word for word in step.split()] for step in text.split(", ") if step]


def kept_outcome(call: Callable[[], Any], kept: list[list[Any]]) -> dict[str, Any]:
    """The outcome of a call where any error is an answer; what it returns is kept beside a reading of it."""

    def keep() -> Any:
        value = call()
        kept.append([plain(value), value])
        return value

    return outcome_of(keep, *ANY_ERROR)


def kept_problem(kept: Any) -> str | None:
    """Whether a list that was given or returned has changed since; `kept` has a reading of each then, and now."""
    changed = any(before != after for before, after in kept)
    return "a list that you were given, or have returned, has changed since; make new ones" if changed else None


def fit_problem(outcome: Any, fits: bool) -> str | None:
    """What is wrong with the outcome of an append that the pool has, or has not, the room for."""
    raised = outcome.get("raised")
    if fits:
        return f"it fits, but it raised {raised}" if raised else None
    right = "OutOfBlocksError" in outcome.get("kinds", [])
    return None if right else f"it does not fit; it must raise OutOfBlocksError, but raised {raised or 'nothing'}"


def shuffled(rng: random.Random, num_blocks: int) -> list[int]:
    """Every block of a pool, in any order."""
    return rng.sample(range(num_blocks), num_blocks)


def count_of(number: int, thing: str) -> str:
    """`1 block`, `2 blocks`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def what_happened(outcome: Any) -> str:
    """An outcome in words."""
    if "raised" in outcome:
        return f"raised {outcome['raised']}"
    value = outcome.get("value")
    return "raised nothing" if value is None else f"returned {short(value)}"


def cut(text: str) -> str:
    """A case in words, no longer than the framework shows."""
    return text if len(text) <= MAX_CASE_TEXT else text[: MAX_CASE_TEXT - 4] + " ..."
