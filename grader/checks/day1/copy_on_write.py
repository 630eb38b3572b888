"""Checks of `CopyOnWrite`: what each sequence reads back, and which blocks had to be copied for it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

from grader.checks.oracles.sharing import Memory, SharingBooks
from grader.checks.support import ANY_ERROR, count_of, cut, is_int_list, owner_counts, pool_of, shuffled
from grader.framework import Case, Exercise, Observations, Property, outcome_of, plain, short
from tinyllm.kv_cache.block_table import BlockTable

# ["new", table, tokens], ["fork", table, child], ["append", table, tokens] through copy-on-write,
# ["grow", table, tokens] without it, ["release", table]
Step = list[Any]


class StepsProperty(Property):
    """Runs steps on a few tables and looks at all of them after each. A step that is refused must change nothing.

    Attributes:
        watches: what is held against the books, beside the tables' sizes.
    """

    in_order = ("steps",)

    watches: ClassVar[frozenset[str]] = frozenset()

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Tables and pool are the reference's; appends and forks go through the answer."""
        size, num_blocks = case["block_size"], len(case["order"])
        pool, memory = pool_of(case["order"]), Memory(num_blocks, case["block_size"])
        cow = parts.CopyOnWrite(pool, memory.copy_block)
        tables: dict[str, Any] = {}
        steps = []
        for name, table_name, *arguments in case["steps"]:
            seen: dict[str, Any] = {}
            copies = memory.copies
            if name == "new":
                tables[table_name] = BlockTable(pool, size)
                memory.write(table_name, 0, tables[table_name].append(arguments[0]))
            elif name == "fork":
                tables[arguments[0]] = cow.fork(tables[table_name])
            elif name == "grow":
                table = tables[table_name]
                memory.write(table_name, table.num_tokens, table.append(arguments[0]))
            elif name == "release":
                tables.pop(table_name).release()
            else:
                table, num_tokens = tables[table_name], arguments[0]
                seen["needs_copy"] = plain(cow.needs_copy(table))
                start = table.num_tokens
                seen["outcome"] = outcome_of(partial(cow.append, table, num_tokens), *ANY_ERROR)
                slots = seen["outcome"].get("value", [])
                if not is_int_list(slots) or any(not 0 <= slot < len(memory.slots) for slot in slots):
                    steps.append(seen)
                    break
                memory.write(table_name, start, slots)
            seen["copies"] = memory.copies - copies
            seen["tables"] = {
                key: {"block_ids": table.block_ids, "num_tokens": table.num_tokens, "content": memory.read(table)}
                for key, table in tables.items()
            }
            seen["owners"] = owner_counts(pool, num_blocks)
            steps.append(plain(seen))
        return steps

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Follow the steps in the books."""
        books = SharingBooks(case["block_size"], len(case["order"]))
        before: Any = None
        for number, step in enumerate(case["steps"]):
            seen = observations[number]
            problem = self.judge_step(books, step, seen, before)
            if problem:
                return f"step {number + 1}, {in_words(step)}: {problem}"
            before = seen
        return None

    def judge_step(self, books: SharingBooks, step: Step, seen: Any, before: Any) -> str | None:
        """Hold one step against the books, and write it down."""
        name, table_name, *arguments = step
        if name == "append" and "needs_copy" in self.watches:
            needs_copy = books.needs_copy(table_name)
            if seen["needs_copy"] is not needs_copy:
                return f"needs_copy must be {needs_copy}, got {short(seen['needs_copy'])}"
        sole_owner = name == "append" and not books.needs_copy(table_name)
        copies = books.follow(step)
        if name == "append":
            problem = outcome_problem(seen, arguments[0], fits=copies is not None)
            if problem:
                return problem
        if copies is None:
            changed = any(seen[key] != before[key] for key in ("tables", "owners"))
            return "it must leave every table and every owner as they were; it has not" if changed else None
        problem = books.size_problem(seen["tables"])
        if not problem and "content" in self.watches:
            problem = books.content_problem(seen["tables"])
        if not problem and "copies" in self.watches and seen["copies"] != copies:
            problem = f"it must copy {count_of(copies, 'block')}, it copied {seen['copies']}"
        if not problem and "needless copies" in self.watches:
            if sole_owner and seen["needs_copy"] is not False:
                problem = f"needs_copy must be False, got {short(seen['needs_copy'])}"
            elif seen["copies"] > copies:
                problem = f"it must copy {count_of(copies, 'block')}, it copied {seen['copies']}"
        if not problem and "owners" in self.watches:
            problem = books.sharing_problem(seen["tables"], seen["owners"])
        if not problem and "no block lost" in self.watches and not books.tables and any(seen["owners"]):
            problem = "every table is released, but some blocks still have an owner"
        return problem

    def describe(self, case: Case) -> str:
        """The steps in words."""
        pool = f"{count_of(len(case['order']), 'block')} of {count_of(case['block_size'], 'slot')}"
        return cut(f"{pool}; " + "; ".join(map(in_words, case["steps"])))


def outcome_problem(seen: Any, num_tokens: int, fits: bool) -> str | None:
    """What is wrong with what an append returned or raised."""
    raised, kinds = seen["outcome"].get("raised"), seen["outcome"].get("kinds", [])
    if not fits:
        right = "OutOfBlocksError" in kinds
        return None if right else f"it does not fit; it must raise OutOfBlocksError, but raised {raised or 'nothing'}"
    if raised:
        return f"it fits, but raised {raised}"
    slots = seen["outcome"].get("value")
    if not is_int_list(slots) or len(slots) != num_tokens:
        return f"it must return {count_of(num_tokens, 'slot')}, got {short(slots)}"
    return None if "tables" in seen else "it returned a slot outside the pool"


def in_words(step: Step) -> str:
    """A step as a learner reads it."""
    name, table, *arguments = step
    if name in ("fork", "release"):
        return f"release of {table}" if name == "release" else f"fork of {table} to {arguments[0]}"
    tokens = count_of(arguments[0], "token")
    words = {
        "new": f"a new table {table} of {tokens}",
        "append": f"append of {tokens} to {table}",
        "grow": f"{table}.append of {tokens}, not through copy-on-write",
    }
    return words[name]


def case_of(order: list[int], block_size: int, *steps: Step) -> Case:
    """A case over a pool that hands out its blocks in `order`."""
    return {"block_size": block_size, "order": order, "steps": list(steps)}


def new(table: str, num_tokens: int) -> Step:
    """Start a sequence."""
    return ["new", table, num_tokens]


def fork(table: str, child: str) -> Step:
    """Fork a table."""
    return ["fork", table, child]


def append(table: str, num_tokens: int) -> Step:
    """Append through copy-on-write."""
    return ["append", table, num_tokens]


def grow(table: str, num_tokens: int) -> Step:
    """Append to the table itself; right where its last block is full."""
    return ["grow", table, num_tokens]


def release(table: str) -> Step:
    """Give a table's blocks up."""
    return ["release", table]


class ForkShares(StepsProperty):
    """Forks of tables of every kind of length; children go on in blocks of their own."""

    sentence = "a fork shares every block with its parent and copies nothing"
    weight = 0.75
    watches = frozenset({"content", "copies", "owners"})

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """One token, full blocks, a fork of a fork; child and parent stay two tables."""
        yield case_of([1, 0], 2, new("a", 1), fork("a", "b"))
        yield case_of([2, 0, 1], 2, new("a", 3), fork("a", "b"), fork("b", "c"))
        yield case_of([2, 0, 1, 3], 2, new("a", 2), fork("a", "b"), grow("b", 1), grow("a", 2))
        for block_size in (1, 3, 16):
            num_tokens = block_size * rng.randint(1, 3)
            order = shuffled(rng, 9)
            yield case_of(order, block_size, new("a", num_tokens), fork("a", "b"), grow("b", 1), release("a"))


class FirstWriterCopies(StepsProperty):
    """Writes to a block that several tables share."""

    sentence = "the first to write to a shared block writes to a copy, and the others keep theirs"
    weight = 1.0
    watches = frozenset({"needs_copy", "content", "copies", "owners"})

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """The child writes, the parent writes, two of three write; full blocks stay shared."""
        yield case_of([1, 0, 2], 2, new("a", 1), fork("a", "b"), append("b", 1))
        yield case_of([3, 0, 2, 1], 2, new("a", 3), fork("a", "b"), append("a", 1))
        yield case_of([3, 0, 2, 1, 4], 4, new("a", 6), fork("a", "b"), append("b", 5), release("a"), release("b"))
        for block_size in (3, 16):
            num_tokens = block_size * rng.randint(0, 2) + rng.randint(1, block_size - 1)
            steps = [new("a", num_tokens), fork("a", "b"), fork("a", "c")]
            steps += [append(name, rng.randint(1, block_size + 1)) for name in rng.sample("abc", 2)]
            yield case_of(shuffled(rng, 16), block_size, *steps)


class NoNeedlessCopy(StepsProperty):
    """Writes that meet no shared block."""

    sentence = "nothing is copied unless the very block that is written has another owner"
    weight = 0.5
    watches = frozenset({"needless copies"})

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """A lone table, a fork at a block's end, a parent that has gone or has its copy, an append of nothing."""
        yield case_of([1, 0], 2, new("a", 1), append("a", 1))
        yield case_of([1, 0, 2], 2, new("a", 2), fork("a", "b"), append("b", 1), append("b", 1))
        yield case_of([1, 0, 2], 2, new("a", 1), fork("a", "b"), append("b", 0))
        yield case_of([1, 0, 2], 2, new("a", 1), fork("a", "b"), release("a"), append("b", 1))
        yield case_of([1, 0, 2], 2, new("a", 1), fork("a", "b"), append("a", 1), append("b", 1))
        for block_size in (1, 3, 16):
            full = block_size * rng.randint(1, 2)
            steps = [new("a", full), fork("a", "b"), append("a", 1), append("b", block_size), append("a", 0)]
            yield case_of(shuffled(rng, 8), block_size, *steps, append("a", 2))


class FailsWithoutATrace(StepsProperty):
    """Appends for which the pool has no room."""

    sentence = "when the pool cannot hold the copy and the new blocks, nothing changes"
    weight = 0.25

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """No room for the copy; room for the copy but not for what follows; then an append that fits."""
        yield case_of([0], 2, new("a", 1), fork("a", "b"), append("b", 1))
        yield case_of([1, 0], 2, new("a", 1), fork("a", "b"), append("b", 2), append("b", 1))
        for block_size in (3, 16):
            num_tokens = block_size * rng.randint(0, 1) + rng.randint(1, block_size - 1)
            room = rng.randint(1, 3)
            order = shuffled(rng, -(-num_tokens // block_size) + room)
            too_many = block_size * room - num_tokens % block_size + 1
            steps = [new("a", num_tokens), fork("a", "b"), append("b", too_many), append("b", 1)]
            yield case_of(order, block_size, *steps)


class EachReadsItsOwn(StepsProperty):
    """Many forks and writes by turns, as with n samples of one prompt."""

    sentence = "after many forks and writes each sequence reads its own tokens, and no block is lost"
    weight = 0.5
    watches = frozenset({"content", "no block lost"})

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Random steps; at the end every table is released."""
        for block_size, length in ((2, 8), (3, 24), (4, 48)):
            yield case_of(shuffled(rng, 24), block_size, *random_steps(rng, block_size, length))


def random_steps(rng: random.Random, block_size: int, length: int) -> list[Step]:
    """Steps on up to five tables, which are released in the end."""
    names = iter("bcdefghijklmnopqrstuvwxyz")
    steps, alive = [new("a", rng.randint(1, 2 * block_size))], ["a"]
    while len(steps) < length:
        name = rng.choice(alive)
        kind = rng.choice(["fork", "append", "append", "append", "release"])
        child = next(names, None) if kind == "fork" and len(alive) < 5 else None
        if child is not None:
            alive.append(child)
            steps.append(fork(name, child))
        elif kind == "append":
            steps.append(append(name, rng.randint(1, block_size)))
        elif kind == "release" and len(alive) > 1:
            alive.remove(name)
            steps.append(release(name))
    return [*steps, *map(release, alive)]


EXERCISE = Exercise(
    name="CopyOnWrite",
    kind="class",
    properties=(ForkShares(), FirstWriterCopies(), NoNeedlessCopy(), FailsWithoutATrace(), EachReadsItsOwn()),
)
