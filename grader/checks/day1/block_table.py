"""Checks of `BlockTable`, against a pool whose slots are listed one by one. The order of the blocks is the pool's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

from grader.checks.support import ANY_ERROR, count_of, cut, is_int_list, owner_counts, pool_of, shuffled
from grader.framework import Case, Exercise, Observations, Property, outcome_of, plain, short, two_texts


def slots_of(block_ids: list[int], block_size: int) -> list[int]:
    """Every slot of these blocks, in order."""
    return [slot for block_id in block_ids for slot in range(block_id * block_size, (block_id + 1) * block_size)]


def blocks_for(num_tokens: int, block_size: int) -> int:
    """How many blocks tokens take, counted up."""
    blocks = 0
    while blocks * block_size < num_tokens:
        blocks += 1
    return blocks


def state_of(table: Any, num_blocks: int) -> dict[str, Any]:
    """What can be seen of a table and of its pool."""
    return {
        "block_ids": plain(table.block_ids),
        "num_tokens": plain(table.num_tokens),
        "num_free": table.allocator.num_free,
        "owners": owner_counts(table.allocator, num_blocks),
    }


def table_problem(state: Any, num_tokens: int, num_table_blocks: int, case: Case) -> str | None:
    """What is wrong with one table that is alone in its pool."""
    if state["num_tokens"] != num_tokens:
        return f"num_tokens must be {num_tokens}, got {short(state['num_tokens'])}"
    block_ids = state["block_ids"]
    if not is_int_list(block_ids):
        return f"block_ids must be a list of block ids, got {short(block_ids)}"
    if len(block_ids) != num_table_blocks:
        return f"block_ids must hold {count_of(num_table_blocks, 'block')}, got {len(block_ids)}"
    if any(state["owners"][block_id] != 1 for block_id in block_ids) or len(set(block_ids)) < len(block_ids):
        return "block_ids must hold different blocks of the pool, each owned once"
    expected = case["num_blocks"] - num_table_blocks
    if state["num_free"] != expected:
        return f"the pool must have {count_of(expected, 'free block')}, it has {state['num_free']}"
    return None


class SlotOfAPosition(Property):
    """Asks a table with known blocks for slots."""

    sentence = "a position's slot is found through its block, wherever in the pool that block is"
    weight = 1.0

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Block sizes 1, 3, 4 and 16; whole sequences, pieces that cross a border, and nothing at all."""
        yield {"block_size": 1, "block_ids": [2], "start": 0, "stop": 1}
        yield {"block_size": 3, "block_ids": [1], "start": 0, "stop": 2}
        yield {"block_size": 4, "block_ids": [12, 5, 3], "start": 0, "stop": 10}
        yield {"block_size": 4, "block_ids": [12, 5, 3], "start": 3, "stop": 5}
        yield {"block_size": 4, "block_ids": [12, 5, 3], "start": 7, "stop": 7}
        for block_size in (1, 3, 16):
            block_ids = shuffled(rng, 9)[:6]
            start, stop = sorted(rng.choices(range(6 * block_size + 1), k=2))
            yield {"block_size": block_size, "block_ids": block_ids, "start": start, "stop": stop}

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Give the table blocks as a prefix hit would."""
        block_ids, stop = case["block_ids"], case["stop"]
        pool = pool_of(range(max(block_ids) + 1))
        table = parts.BlockTable(pool, case["block_size"], block_ids, stop)
        return plain(table.slots(case["start"], stop))

    def judge(self, case: Case, observations: Observations) -> str | None:
        """The piece of the list of all slots."""
        expected = slots_of(case["block_ids"], case["block_size"])[case["start"] : case["stop"]]
        if is_int_list(observations) and observations == expected:
            return None
        wanted, came = two_texts(expected, observations)
        return f"expected the slots {wanted}, got {came}"


class OneTable(Property):
    """Appends to a single table (see `table_case`)."""

    in_order = ("appends",)

    def describe(self, case: Case) -> str:
        """The table and its appends in words."""
        pool = f"{count_of(case['num_blocks'], 'block')} of {count_of(case['block_size'], 'slot')}"
        start = f"{count_of(case['num_tokens'], 'token')} in {count_of(case['num_owned'], 'block')} to begin with, "
        appends = ", ".join(map(str, case["appends"]))
        return cut(
            f"{pool}, handed out in the order {case['order']}; {start if case['num_owned'] else ''}append {appends}"
        )


class TakesWhatIsMissing(OneTable):
    """Appends to one table, looking at it and at the pool each time."""

    sentence = "append takes only the blocks that are missing, and counts the new tokens"
    weight = 1.0

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Tokens one by one and in chunks, up to a border and across; a start with blocks that are owned already."""
        yield table_case([1, 0], 2, [1])
        yield table_case([2, 0, 1], 2, [2])
        yield table_case([1, 0], 2, [1, 1])
        yield table_case([3, 1, 0, 2], 3, [4, 1, 0, 2])
        yield table_case([3, 1, 0, 2], 4, [1], num_owned=2, num_tokens=8)
        yield table_case([3, 1, 0, 2], 4, [1, 6], num_owned=2, num_tokens=2)
        for block_size in (1, 3, 16):
            appends = [rng.randint(0, 2 * block_size) for _ in range(rng.randint(3, 8))]
            yield table_case(shuffled(rng, 2 * len(appends) + 1), block_size, appends)

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """The first blocks of the pool may belong to the table from the start."""
        table = start_table(parts, case)
        steps = []
        for num_tokens in case["appends"]:
            needed = plain(table.num_new_blocks(num_tokens))
            table.append(num_tokens)
            steps.append([needed, state_of(table, case["num_blocks"])])
        return steps

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Blocks are counted up."""
        num_tokens, size, blocks = case["num_tokens"], case["block_size"], case["num_owned"]
        before = case["order"][:blocks]
        for number, new_tokens in enumerate(case["appends"]):
            needed, state = observations[number]
            num_tokens += new_tokens
            missing = max(0, blocks_for(num_tokens, size) - blocks)
            blocks += missing
            problem = table_problem(state, num_tokens, blocks, case)
            if not problem and state["block_ids"][: len(before)] != before:
                problem = "the blocks that the table has must stay where they are, since they hold tokens"
            if not problem and needed != missing:
                problem = f"num_new_blocks({new_tokens}) must be {missing}, got {short(needed)}"
            if problem:
                return f"append number {number + 1}, of {count_of(new_tokens, 'token')}: {problem}"
            before = state["block_ids"]
        return None


class FailsWithoutATrace(OneTable):
    """Appends more than the pool can hold."""

    sentence = "when the pool has too few blocks, append raises OutOfBlocksError and the table stays as it was"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """No block left at all, and fewer than are needed; what does fit must still fit afterwards."""
        yield table_case([0], 2, [2, 1])
        yield table_case([2, 0, 1], 2, [2, 5, 4])
        yield table_case([2, 0, 1], 4, [6, 7, 5, 1, 1])
        for block_size in (1, 3, 16):
            num_blocks = rng.randint(3, 8)
            room = num_blocks * block_size
            first = rng.randint(1, room - 1)
            too_many = room - first + rng.randint(1, block_size)
            yield table_case(shuffled(rng, num_blocks), block_size, [first, too_many, room - first, 1])

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Any error is an answer here; the judge knows the right one."""
        table = start_table(parts, case)
        steps = []
        for num_tokens in case["appends"]:
            outcome = outcome_of(partial(table.append, num_tokens), *ANY_ERROR)
            steps.append([outcome, state_of(table, case["num_blocks"])])
        return steps

    def judge(self, case: Case, observations: Observations) -> str | None:
        """A failed append must leave tokens, blocks and pool as they were."""
        num_tokens, size, blocks = 0, case["block_size"], 0
        for number, new_tokens in enumerate(case["appends"]):
            outcome, state = observations[number]
            fits = blocks_for(num_tokens + new_tokens, size) <= case["num_blocks"]
            raised = outcome.get("raised")
            problem = None
            if fits:
                num_tokens += new_tokens
                blocks = blocks_for(num_tokens, size)
                problem = f"they fit, but it raised {raised}" if raised else None
            elif "OutOfBlocksError" not in outcome.get("kinds", []):
                problem = f"they do not fit; it must raise OutOfBlocksError, but raised {raised or 'nothing'}"
            if not problem:
                problem = table_problem(state, num_tokens, blocks, case)
                problem = f"after the OutOfBlocksError {problem}" if problem and not fits else problem
            if problem:
                return f"append number {number + 1}, of {count_of(new_tokens, 'token')}: {problem}"
        return None


class TablesKeepApart(Property):
    """Several tables that grow by turns and are released."""

    sentence = "append returns the new tokens' slots, which no other table has, and release gives all back"
    weight = 0.5
    in_order = ("turns",)

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Each turn is [table, tokens to append], or [table, None] to release it."""
        yield {"block_size": 2, "num_tables": 1, "order": [1, 0], "turns": [[0, 1], [0, 1]]}
        yield {"block_size": 2, "num_tables": 2, "order": [2, 0, 1], "turns": [[0, 1], [1, 1], [0, None], [1, 2]]}
        for block_size in (1, 3, 4):
            turns = [[rng.randrange(3), rng.choice([1, 1, 2, 5, None])] for _ in range(18)]
            order = shuffled(rng, 5 * 18 + 1)
            yield {"block_size": block_size, "num_tables": 3, "order": order, "turns": turns}

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Release what is left at the end."""
        pool = pool_of(case["order"])
        tables = [parts.BlockTable(pool, case["block_size"]) for _ in range(case["num_tables"])]
        steps = []
        for index, num_tokens in [*case["turns"], *([index, None] for index in range(case["num_tables"]))]:
            slots = tables[index].release() if num_tokens is None else tables[index].append(num_tokens)
            steps.append([plain(slots), plain(tables[index].block_ids), pool.num_free])
        return steps

    def judge(self, case: Case, observations: Observations) -> str | None:
        """A slot belongs to one table until that is released."""
        size = case["block_size"]
        owned: list[list[int]] = [[] for _ in range(case["num_tables"])]
        for number, (index, num_tokens) in enumerate(case["turns"]):
            slots, block_ids, _ = observations[number]
            if num_tokens is None:
                owned[index] = []
                continue
            if not is_int_list(slots) or not is_int_list(block_ids):
                return f"append must return a list of slots, got {short(slots)}"
            start = len(owned[index])
            expected = slots_of(block_ids, size)[start : start + num_tokens]
            if slots != expected:
                wanted, came = two_texts(expected, slots)
                call = f"append of {count_of(num_tokens, 'token')} after {start}"
                return f"turn {number + 1}, {call}: expected the slots {wanted}, got {came}"
            if any(not set(held).isdisjoint(slots) for held in owned):
                return f"turn {number + 1}: a slot is given to two tokens at once"
            owned[index] += slots
        free = observations[-1][2]
        if free != len(case["order"]):
            return f"when all tables are released {len(case['order'])} blocks must be free, got {short(free)}"
        return None


def table_case(order: list[int], block_size: int, appends: list[int], num_owned: int = 0, num_tokens: int = 0) -> Case:
    """One table over a pool that hands out its blocks in `order`; it owns the first ones from the start."""
    return {
        "block_size": block_size,
        "num_blocks": len(order),
        "order": order,
        "num_owned": num_owned,
        "num_tokens": num_tokens,
        "appends": appends,
    }


def start_table(parts: SimpleNamespace, case: Case) -> Any:
    """The table of such a case."""
    pool = pool_of(case["order"])
    return parts.BlockTable(pool, case["block_size"], pool.allocate(case["num_owned"]), case["num_tokens"])


EXERCISE = Exercise(
    name="BlockTable",
    kind="class",
    properties=(SlotOfAPosition(), TakesWhatIsMissing(), FailsWithoutATrace(), TablesKeepApart()),
)
