"""Checks of `CopyOnWrite`: what each sequence reads back, and which blocks had to be copied for it."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

from grader.checks.oracles.sharing import Memory, SharingBooks
from grader.checks.support import (
    count_of,
    cut,
    fit_problem,
    is_int_list,
    kept_outcome,
    kept_problem,
    owner_counts,
    pool_of,
    shuffled,
    steps_of,
)
from grader.framework import Case, Exercise, Observations, Prop, plain, short
from tinyllm.kv_cache.block_table import BlockTable

# ["new", table, tokens], ["fork", table, child], ["hold", table, child]: what a fork does, but by somebody else,
# ["append", table, tokens] through copy-on-write, ["grow", table, tokens] without it, ["release", table]
Step = list[Any]


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Tables and pool are the reference's; appends and forks go through the answer."""
    size, num_blocks = case["block_size"], len(case["order"])
    pool, memory = pool_of(case["order"]), Memory(num_blocks, size)
    cow = parts.CopyOnWrite(pool, memory.copy_block)
    tables: dict[str, Any] = {}
    steps: list[Any] = []
    kept: list[list[Any]] = []
    for name, key, *arguments in case["steps"]:
        seen: dict[str, Any] = {}
        copies = memory.copies
        if name == "new":
            tables[key] = BlockTable(pool, size)
            memory.write(key, 0, tables[key].append(*arguments))
        elif name == "fork":
            tables[arguments[0]] = cow.fork(tables[key])
        elif name == "hold":
            for block_id in tables[key].block_ids:
                pool.share(block_id)
            tables[arguments[0]] = BlockTable(pool, size, tables[key].block_ids, tables[key].num_tokens)
        elif name == "grow":
            memory.write(key, tables[key].num_tokens, tables[key].append(*arguments))
        elif name == "release":
            tables.pop(key).release()
        else:
            start = tables[key].num_tokens
            seen["needs_copy"] = plain(cow.needs_copy(tables[key]))
            seen["outcome"] = kept_outcome(partial(cow.append, tables[key], *arguments), kept)
            slots = seen["outcome"].get("value", [])
            if not is_int_list(slots) or any(not 0 <= slot < len(memory.slots) for slot in slots):
                steps.append(seen)
                break
            memory.write(key, start, slots)
        seen["copies"] = memory.copies - copies
        seen["tables"] = {
            key: {"block_ids": table.block_ids, "num_tokens": table.num_tokens, "content": memory.read(table)}
            for key, table in tables.items()
        }
        seen["owners"] = owner_counts(pool, num_blocks)
        steps.append(plain(seen))
    return {"steps": steps, "kept": plain(kept)}


def judge(case: Case, observations: Observations, watched: Collection[str] = ()) -> str | None:
    """Follow the steps in the books; a step that is refused must change nothing.

    Args:
        watched: what is held against the books, beside the tables' sizes: "content", "copies", "owners", "needs_copy",
            or only "needless" copies.
    """
    books = SharingBooks(case["block_size"], len(case["order"]))
    before: Any = None
    for number, step in enumerate(case["steps"]):
        seen = observations["steps"][number]
        problem = step_problem(books, step, seen, before, watched)
        if problem:
            return f"step {number + 1}, {in_words(step)}: {problem}"
        before = seen
    return kept_problem(observations["kept"])


def step_problem(books: SharingBooks, step: Step, seen: Any, before: Any, watched: Collection[str]) -> str | None:
    """Hold one step against the books, and write it down."""
    name, key, *arguments = step
    needs_copy = name == "append" and books.needs_copy(key)
    if name == "append" and ("needs_copy" in watched or ("needless" in watched and not needs_copy)):
        got = seen["needs_copy"]
        if got != needs_copy or type(got) not in (bool, int):
            return f"needs_copy must be {needs_copy}, got {short(got)}"
    copies = books.follow(["fork", key, *arguments] if name == "hold" else step)
    if name == "append":
        problem = append_problem(seen, arguments[0], fits=copies is not None)
        if problem:
            return problem
    if copies is None:
        changed = any(seen[part] != before[part] for part in ("tables", "owners"))
        return "it must leave every table and every owner as they were; it has not" if changed else None
    problem = books.size_problem(seen["tables"])
    if not problem and "content" in watched:
        problem = books.content_problem(seen["tables"])
    if not problem and ("copies" in watched or "needless" in watched):
        wrong = seen["copies"] > copies or ("copies" in watched and seen["copies"] < copies)
        problem = f"it must copy {count_of(copies, 'block')}, it copied {seen['copies']}" if wrong else None
    if not problem and "owners" in watched:
        problem = books.sharing_problem(seen["tables"], seen["owners"])
    if not problem and not books.tables and any(seen["owners"]):
        problem = "every table is released, but some blocks still have an owner"
    return problem


def append_problem(seen: Any, num_tokens: int, fits: bool) -> str | None:
    """What is wrong with what an append returned or raised."""
    problem = fit_problem(seen["outcome"], fits)
    if problem or not fits:
        return problem
    slots = seen["outcome"].get("value")
    if not is_int_list(slots) or len(slots) != num_tokens:
        return f"it must return {count_of(num_tokens, 'slot')}, got {short(slots)}"
    return None if "tables" in seen else "it returned a slot outside the pool"


def describe(case: Case) -> str:
    """The steps in words."""
    pool = f"{count_of(len(case['order']), 'block')} of {count_of(case['block_size'], 'slot')}"
    return cut(f"{pool}; " + "; ".join(map(in_words, case["steps"])))


def in_words(step: Step) -> str:
    """A step as a learner reads it."""
    name, table, *arguments = step
    words = {
        "new": "a new table {0} of {1}",
        "fork": "fork of {0} to {1}",
        "hold": "somebody else makes a table {1} with all blocks of {0}",
        "append": "append of {1} to {0}",
        "grow": "{0}.append of {1}, not through copy-on-write",
        "release": "release of {0}",
    }
    return words[name].format(table, *(count_of(item, "token") if type(item) is int else item for item in arguments))


# ---------------------------------------------------------------- cases


def case_of(order: list[int], block_size: int, steps: str) -> Case:
    """A case over a pool that hands out its blocks in `order`."""
    return {"block_size": block_size, "order": order, "steps": steps_of(steps)}


def any_forks(rng: random.Random) -> Iterator[Case]:
    for block_size, length in ((2, 8), (3, 24), (4, 48)):
        yield case_of(shuffled(rng, 24), block_size, ", ".join(random_steps(rng, block_size, length)))


def random_steps(rng: random.Random, block_size: int, length: int) -> list[str]:
    """Steps on up to five tables, which are released in the end."""
    names = iter("bcdefghijklmnopqrstuvwxyz")
    steps, alive = [f"new a {rng.randint(0, 2 * block_size)}"], ["a"]
    while len(steps) < length:
        name, kind = rng.choice(alive), rng.choice(["fork", "append", "append", "append", "release"])
        child = next(names, None) if kind == "fork" and len(alive) < 5 else None
        if child is not None:
            alive.append(child)
            steps.append(f"fork {name} {child}")
        elif kind == "append":
            steps.append(f"append {name} {rng.randint(0, block_size + 1)}")
        elif kind == "release" and len(alive) > 1:
            alive.remove(name)
            steps.append(f"release {name}")
    return [*steps, *(f"release {name}" for name in alive)]


prop = partial(Prop, drive=drive, judge=judge, describe=describe, in_order=("steps",))

EXERCISE = Exercise(
    name="CopyOnWrite",
    kind="class",
    properties=(
        prop(
            "a fork shares every block with its parent and copies nothing",
            weight=0.75,
            judge=partial(judge, watched=["content", "copies", "owners"]),
            fixed=[
                case_of([1, 0], 2, "new a 1, fork a b"),
                case_of([1, 0], 2, "new a 0, fork a b, grow b 1, release a, release b"),
                case_of([2, 0, 1], 2, "new a 3, fork a b, fork b c, release a, release c, release b"),
                case_of([2, 0, 1, 3], 2, "new a 2, fork a b, grow b 1, grow a 2"),
                case_of([2, 3, 0, 1], 1, "new a 2, fork a b, grow b 1, release a"),
            ],
        ),
        prop(
            "the first to write to a shared block writes to a copy, and the others keep theirs",
            weight=1.0,
            judge=partial(judge, watched=["needs_copy", "content", "copies", "owners"]),
            fixed=[
                case_of([1, 0, 2], 2, "new a 1, fork a b, append b 1"),
                case_of([3, 0, 2, 1], 2, "new a 3, fork a b, append a 1, append b 1"),
                case_of([2, 1, 0], 2, "new a 1, hold a b, append a 1, release b, release a"),
                case_of([3, 0, 2, 1, 4], 4, "new a 6, fork a b, append b 5, release a, release b"),
                case_of([4, 0, 2, 1, 3], 3, "new a 4, fork a b, fork a c, append c 1, append a 2, append b 1"),
            ],
        ),
        prop(
            "nothing is copied unless the very block that is written has another owner",
            weight=0.5,
            judge=partial(judge, watched=["needless"]),
            fixed=[
                case_of([1, 0], 2, "new a 1, append a 1"),
                case_of([1, 0], 2, "new a 0, append a 1"),
                case_of([1, 0, 2], 2, "new a 0, append a 0, fork a b, append b 1, append a 1"),
                case_of([1, 0, 2], 2, "new a 2, fork a b, append b 1, append b 1"),
                case_of([1, 0, 2], 2, "new a 1, fork a b, append b 0"),
                case_of([1, 0, 2], 2, "new a 1, fork a b, release a, append b 1"),
                case_of([1, 0, 2], 2, "new a 1, fork a b, append a 1, append b 1"),
                case_of([4, 1, 3, 0, 2], 3, "new a 3, fork a b, append a 1, append b 3, append a 0, append a 2"),
                case_of([3, 1, 0, 2], 1, "new a 1, fork a b, append a 1, append b 1, append a 1"),
            ],
        ),
        prop(
            "when the pool cannot hold the copy and the new blocks, nothing changes",
            weight=0.25,
            fixed=[
                case_of([0], 2, "new a 1, fork a b, append b 1"),
                case_of([1, 0], 2, "new a 1, fork a b, append b 2, append b 1"),
                case_of([1, 0], 2, "new a 1, fork a b, append b 3, release b, release a"),
                case_of([1, 0, 2, 3], 2, "new a 5, fork a b, append b 2, release b, append a 2, release a"),
                # what does fit: with the last free block, or with none
                case_of([0, 1], 2, "new a 2, fork a b, append b 1"),
                case_of([0, 2, 1], 2, "new a 1, fork a b, append b 2"),
                case_of([0], 2, "new a 1, fork a b, append b 0, release a, append b 1"),
            ],
        ),
        prop(
            "after many forks and writes each sequence reads its own tokens, and no block is lost",
            weight=0.5,
            judge=partial(judge, watched=["content"]),
            fixed=[
                case_of([1, 0, 3, 2, 4], 4, "new a 3, fork a b, append b 1, append a 1, append a 3, append b 2"),
                *any_forks(random.Random(1)),
            ],
            random=any_forks,
        ),
    ),
)
