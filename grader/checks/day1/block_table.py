"""Checks of `BlockTable`, against a pool whose slots are listed one by one. Which blocks it takes is up to the pool."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

from grader.checks.oracles.sharing import SharingBooks
from grader.checks.support import (
    count_of,
    cut,
    fit_problem,
    is_int_list,
    is_number,
    kept_outcome,
    kept_problem,
    owner_counts,
    pool_of,
    shuffled,
    steps_of,
)
from grader.framework import Case, Exercise, Observations, Prop, plain, short, two_texts

# ["new", table, its tokens, its blocks], ["need" or "append", table, tokens], ["slots", table, start, stop],
# ["release", table], and ["swap", table]: its last block is replaced by another, as copy-on-write does it
Step = list[Any]


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Do the steps in one pool, and look at the tables and at the pool after each."""
    pool = pool_of(case["order"])
    pool.ref_counts = defaultdict(int)  # type: ignore[assignment]  # some ids are far beyond the size of the pool
    tables: dict[str, Any] = {}
    steps, kept = [], []
    for name, key, *numbers in case["steps"]:
        seen: dict[str, Any] = {}
        if name == "new":
            given = pool.allocate(numbers[1])
            kept.append([plain(given), given])
            tables[key] = parts.BlockTable(pool, case["block_size"], given, numbers[0])
        elif name == "need":
            seen["needed"] = plain(tables[key].num_new_blocks(*numbers))
        elif name == "release":
            tables[key].release()
        elif name == "swap":
            pool.free(tables[key].block_ids[-1])
            tables[key].block_ids[-1:] = pool.allocate(1)
        else:
            seen["outcome"] = kept_outcome(partial(getattr(tables[key], name), *numbers), kept)
        seen["tables"] = {key: {"block_ids": t.block_ids, "num_tokens": t.num_tokens} for key, t in tables.items()}
        steps.append(plain({**seen, "owners": owner_counts(pool, len(case["order"]))}))
    return {"steps": steps, "kept": plain(kept)}


def judge(case: Case, observations: Observations, watched: str = "sizes") -> str | None:
    """Follow the steps in the books; an append that is refused must change nothing.

    Args:
        watched: what is held against the books, the "sizes" of tables and pool, or the "slots".
    """
    books = SharingBooks(case["block_size"], len(case["order"]))
    before: Any = {}
    for number, (step, seen) in enumerate(zip(case["steps"], observations["steps"], strict=True)):
        start = len(books.tokens.get(step[1], ()))
        problem = step_problem(books, step, seen, before, watched)
        if not problem and watched == "slots":
            problem = slots_problem(books, step, seen, start)
        elif not problem:
            problem = books.size_problem(seen["tables"]) or books.sharing_problem(seen["tables"], seen["owners"])
            problem = problem and ("after the error " if "raised" in seen.get("outcome", {}) else "") + problem
        if problem:
            return f"step {number + 1}, {in_words(step)}: {problem}"
        before = seen["tables"]
    return kept_problem(observations["kept"]) if watched == "slots" else None


def step_problem(books: SharingBooks, step: Step, seen: Any, before: Any, watched: str) -> str | None:
    """Write a step down; what is wrong with it whatever is watched."""
    name, key, *numbers = step
    if name in ("need", "slots") and seen["tables"] != before:
        return "asking must change nothing; the table has changed"
    if name == "need" and watched == "sizes":
        expected, got = books.new_blocks(key, numbers[0]), seen["needed"]
        return None if is_number(got) and got == expected else f"it must be {expected}, got {short(got)}"
    if name == "append":
        problem = fit_problem(seen["outcome"], fits=books.follow(step) is not None)
        old, new = before[key]["block_ids"], seen["tables"][key]["block_ids"]
        moved = any(a != b for a, b in zip(old, new, strict=False))
        return problem or ("the blocks that the table has must stay where they are" if moved else None)
    if name == "release":
        books.follow(step)
    if name in ("new", "release"):  # a table that is released is empty again
        books.follow(["new", key, *(numbers or [0])])
    return None


def slots_problem(books: SharingBooks, step: Step, seen: Any, start: int) -> str | None:
    """What is wrong with slots, which are those of the blocks that a table has now; none belongs to two tables."""
    name, key, *numbers = step
    slots = {key: slots_of(table["block_ids"], books.block_size) for key, table in seen["tables"].items()}
    if name in ("append", "slots"):
        first, stop = numbers if name == "slots" else (start, start + numbers[0])
        expected, got = slots[key][first:stop], seen["outcome"].get("value", seen["outcome"].get("raised"))
        if not is_int_list(got) or len(got) != stop - first or got != expected:
            wanted, came = two_texts(expected, got)
            return f"expected the slots {wanted}, got {came}"
    every = [slot for key, tokens in books.tokens.items() for slot in slots[key][: len(tokens)]]
    if len(set(every)) < len(every):
        return "a slot is given to two tokens at once"
    if not any(slots.values()) and any(seen["owners"]):
        return "no table has a block, but some blocks still have an owner"
    return None


def slots_of(block_ids: list[int], block_size: int) -> list[int]:
    """Every slot of these blocks, in order."""
    return [slot for block_id in block_ids for slot in range(block_id * block_size, (block_id + 1) * block_size)]


def describe(case: Case) -> str:
    """The pool and the steps in words."""
    pool = f"{count_of(len(case['order']), 'block')} of {count_of(case['block_size'], 'slot')}"
    steps = "; ".join(map(in_words, case["steps"]))
    return cut(f"{pool}, handed out in the order {case['order']}; {steps}")


def in_words(step: Step) -> str:
    """A step as a learner reads it."""
    name, key, *numbers = step
    if name == "new":
        start = f" of {count_of(numbers[0], 'token')} in {count_of(numbers[1], 'block')}" if numbers[1] else ""
        return f"a table {key}{start}"
    if name == "swap":
        return f"another block takes the place of the last one of {key}"
    method = "num_new_blocks" if name == "need" else name
    return f"{key}.{method}({', '.join(map(str, numbers))})"


# ---------------------------------------------------------------- cases


def tables(order: list[int], block_size: int, steps: str) -> Case:
    """Tables over a pool that hands out its blocks in `order`."""
    return {"order": order, "block_size": block_size, "steps": steps_of(steps)}


def grown(order: list[int], block_size: int, *appends: int, start: str = "0 0") -> Case:
    """One table and its appends, before each of which it says how many blocks it needs."""
    return tables(order, block_size, f"new a {start}, " + ", ".join(f"need a {n}, append a {n}" for n in appends))


def any_turns(rng: random.Random) -> Iterator[Case]:
    turns = ["need {0} {1}, append {0} {1}", "append {0} 1", "append {0} {1}, slots {0} 0 {1}", "release {0}"]
    for block_size in (1, 3, 4):
        steps = [rng.choice(turns).format(rng.choice("abc"), rng.randint(0, 2 * block_size)) for _ in range(10)]
        yield tables(
            shuffled(rng, 3 * 10),
            block_size,
            ", ".join(["new a 0 0, new b 0 0, new c 0 0", *steps, "release a, release b, release c"]),
        )


prop = partial(Prop, drive=drive, judge=judge, describe=describe, in_order=("steps",))

EXERCISE = Exercise(
    name="BlockTable",
    kind="class",
    properties=(
        prop(
            "a position's slot is found through its block, wherever in the pool that block is",
            weight=1.0,
            judge=partial(judge, watched="slots"),
            fixed=[
                tables([1, 0, 2], 3, "new a 3 1, slots a 0 2"),
                tables([2, 0, 1], 1, "new a 1 1, slots a 0 1"),
                tables([1, 0], 2, "new a 0 0, slots a 0 0"),
                tables([3, 0, 2, 1], 4, "new a 10 3, slots a 0 10, slots a 3 5, slots a 7 7, slots a 4 8"),
                tables([2, 0, 1], 2, "new a 4 2, slots a 0 4, slots a 4 4, slots a 1 3"),
                tables([2, 0, 1], 3, "new a 5 2, slots a 0 5, swap a, slots a 0 5, slots a 3 4"),
                tables([2**30], 2, "new a 2 1, slots a 0 2"),  # beyond what an int32 holds
            ],
        ),
        prop(
            "append takes only the blocks that are missing, and counts the new tokens",
            weight=1.0,
            fixed=[
                grown([1, 0], 2, 1),
                grown([2, 0, 1], 2, 2),
                grown([1, 0], 2, 1, 1),
                grown([1, 0], 2, 0, 2, 0),
                grown([0], 2, 2),  # the last free block
                grown([0], 2, 2, start="0 1"),  # no block is free, and none is missing
                grown([2, 1, 0], 2, 0, 1, 4, start="1 2"),
                grown([3, 1, 0, 2], 3, 4, 1, 0, 2),
                grown([3, 1, 0, 2], 4, 1, start="8 2"),
                tables([1, 0], 2, "new a 0 0, need a 7, append a 1"),  # asking takes nothing
            ],
            random=any_turns,
        ),
        prop(
            "when the pool has too few blocks, append raises OutOfBlocksError and the table stays as it was",
            weight=0.5,
            fixed=[
                tables([0], 2, "new a 0 0, append a 2, append a 1"),
                tables([0], 2, "new a 0 0, append a 3, append a 2, release a"),
                tables([2, 0, 1], 2, "new a 0 0, append a 2, append a 5, append a 4"),
                tables(
                    [2, 0, 1], 4, "new a 0 0, append a 6, append a 7, append a 5, append a 1, append a 1, release a"
                ),
                tables([1, 0], 2, "new a 1 2, append a 4, append a 3, append a 1"),
                tables([1, 0], 2, "new a 0 0, new b 0 0, append a 1, append b 1, append a 2, release b, append a 2"),
            ],
        ),
        prop(
            "append returns the new tokens' slots, which no other table has, and release gives all back",
            weight=0.5,
            judge=partial(judge, watched="slots"),
            fixed=[
                tables([1, 0], 2, "new a 0 0, append a 1, append a 1, release a"),
                tables([2, 0, 1], 2, "new a 0 0, new b 0 0, append a 1, append b 1, release a, append b 2, release b"),
                tables([2, 0, 3, 1], 2, "new a 3 2, append a 1, append a 0, append a 2, release a"),
                tables([2, 0, 3, 1], 2, "new a 1 3, append a 2, append a 3, release a"),  # into blocks it has already
                tables([2, 0, 1, 3], 2, "new a 0 0, append a 1, swap a, append a 1, append a 1, swap a, append a 2"),
                *any_turns(random.Random(1)),
            ],
            random=any_turns,
        ),
    ),
)
