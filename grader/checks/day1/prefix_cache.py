"""Checks of `PrefixCache`, against a plain list of whole prefixes. How blocks are named is never asserted."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

from grader.checks.oracles.prefixes import PrefixBooks
from grader.checks.support import ANY_ERROR, count_of, cut, is_int_list, owner_counts, pool_of, shuffled
from grader.framework import Case, Exercise, Observations, Prop, outcome_of, plain, short

Step = list[Any]  # ["evict", number], ["end", name], or one of TODO with name and tokens

REUSED = -1  # what a caller writes over its lists when a call is over

TODO = {
    "request": "match, allocate and insert",
    "twin": "allocate and insert (computed without a match)",
    "match": "match",
}


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Run requests over a pool of the reference's; stop where an answer leaves nothing to go on with."""
    pool, size = pool_of(case["order"]), case["block_size"]
    cache = parts.PrefixCache(pool, size)
    held: dict[str, list[int]] = {}
    steps: list[Any] = []
    lent: list[tuple[list[int], int]] = []
    lend_to = partial(lend, lent)
    for kind, subject, *arguments in case["steps"]:
        seen: dict[str, Any] = {}
        if kind == "evict":
            seen["evicted"] = plain(cache.evict(subject))
        elif kind == "end":
            seen["outcome"] = outcome_of(partial(list, map(pool.free, reversed(held.pop(subject)))), *ANY_ERROR)
        else:
            tokens = arguments[0]
            hit = seen["hit"] = [] if kind == "twin" else lend_to(seen, cache.match, token_ids=tokens)
            if not is_int_list(hit):
                return [*steps, plain(seen)]
            missing = blocks_to_allocate(kind, len(tokens), len(hit), size)
            seen["outcome"] = outcome_of(partial(pool.allocate, missing), *ANY_ERROR)
            if "value" in seen["outcome"]:
                held[subject] = hit + seen["outcome"]["value"]
                if kind != "match":
                    lend_to(seen, cache.insert, token_ids=tokens, block_ids=held[subject])
        seen["kept"] = all(plain(values) == [REUSED] * length for values, length in lent)
        seen |= {"owners": owner_counts(pool, len(case["order"])), "num_free": pool.num_free}
        steps.append(plain(seen))
        if "raised" in seen.get("outcome", {}):
            break
    return steps


def blocks_to_allocate(kind: str, num_tokens: int, num_hit: int, block_size: int) -> int:
    """Blocks that a step takes from the pool, beside those that were found."""
    return 0 if kind == "match" else max(0, -(-num_tokens // block_size) - num_hit)


def lend(
    lent: list[tuple[list[int], int]], seen: dict[str, Any], method: Callable[..., Any], **lists: list[int]
) -> Any:
    """Call a method with lists that its caller uses for other things afterwards, as it does the list that it gets.

    Args:
        lent: gets all of these lists, with their lengths; nobody else may change them from now on.
    """
    given = {name: list(values) for name, values in lists.items()}
    answer = method(*given.values())
    read = plain(answer)
    seen["changed"] = [name for name in lists if plain(given[name]) != lists[name]]
    for values in (*given.values(), answer):
        if isinstance(values, list):
            values[:] = [REUSED] * len(values)
            lent.append((values, len(values)))
    return read


def judge(case: Case, observations: Observations, watched: Collection[str] = ()) -> str | None:
    """Follow the steps in the books: what is found, and how many are evicted.

    Args:
        watched: what else is held against them after each step, "owners" or "num_free".
    """
    books = PrefixBooks(case["block_size"], len(case["order"]))
    for number, step in enumerate(case["steps"]):
        seen = observations[number]
        problem = judge_step(books, step, seen)
        if not problem and not seen["kept"]:
            problem = "your code changes a list that it was given or has returned in an earlier call"
        if not problem and "owners" in watched:
            problem = books.owners_problem(seen["owners"])
        if not problem and "num_free" in watched:
            problem = books.free_problem(seen["num_free"])
        if problem:
            return f"step {number + 1}, {in_words(step)}: {problem}"
    return None


def judge_step(books: PrefixBooks, step: Step, seen: Any) -> str | None:
    """Hold one step against the books, and write it down."""
    kind, subject, *arguments = step
    outcome = seen.get("outcome", {})
    if kind == "evict":
        expected = books.evict(subject)
        if seen["evicted"] == expected:
            return None
        return f"evict must return {expected}, the number of blocks that it freed; got {short(seen['evicted'])}"
    if kind == "end":
        del books.held[subject]
        return "a block that this request still owned was free already" if "raised" in outcome else None
    hit = [] if kind == "twin" else books.match(arguments[0])
    if not is_int_list(seen["hit"]):
        return f"match must return a list of block ids, got {short(seen['hit'])}"
    if len(seen["hit"]) != len(hit):
        return f"match must find {count_of(len(hit), 'cached block')}, got {len(seen['hit'])}"
    if seen["hit"] != hit:
        return "match must return the blocks that were inserted for these tokens, in order; it returned others"
    if "raised" in outcome:
        return "the pool has too few free blocks for this request; the cache must have kept some"
    fresh, missing = outcome["value"], blocks_to_allocate(kind, len(arguments[0]), len(hit), books.block_size)
    if not is_int_list(fresh) or len(fresh) != missing:
        return "the pool did not hand out the blocks that this request needs"
    if seen.get("changed"):
        return f"your code changes its argument `{seen['changed'][0]}`; work on a copy"
    books.held[subject] = hit + fresh
    books.names |= {block_id: f"block {len(hit) + i} of {subject}" for i, block_id in enumerate(fresh)}
    if kind != "match":
        books.insert(arguments[0], books.held[subject])
    return None


def describe(case: Case) -> str:
    """The steps in words."""
    pool = f"{count_of(len(case['order']), 'block')} of {count_of(case['block_size'], 'slot')}"
    return cut(f"{pool}; " + "; ".join(map(in_words, case["steps"])))


def in_words(step: Step) -> str:
    """A step as a learner reads it."""
    kind, subject, *arguments = step
    if kind == "evict":
        return f"evict({subject})"
    if kind == "end":
        return f"the end of {subject}, which frees its blocks"
    return f"{TODO[kind]} for {subject} with tokens {short(arguments[0])}"


# ---------------------------------------------------------------- cases


def steps_case(num_blocks: int, block_size: int, text: str) -> Case:
    """A case over a pool whose last block comes first; its steps as "request a 123, match b 124, end a, evict 1".

    Tokens are single digits, and "." is none. A match makes its caller an owner of what it finds until its "end".
    """
    steps: list[Step] = []
    for kind, name, *tokens in map(str.split, text.split(", ")):
        rows = ([int(digit) for digit in row.strip(".")] for row in tokens)
        steps.append([kind, int(name) if kind == "evict" else name, *rows])
    return {"block_size": block_size, "order": list(range(num_blocks))[::-1], "steps": steps}


def mixed(rng: random.Random) -> Iterator[Case]:
    for block_size, length in ((2, 16), (3, 40), (4, 80)):
        yield {"block_size": block_size, "order": shuffled(rng, 30), "steps": random_steps(rng, block_size, length)}


def random_steps(rng: random.Random, block_size: int, length: int) -> list[Step]:
    """Requests that begin alike in many ways, at most three at once, with evictions between them.

    No prompt ends with a full block: what a hit leaves over is another property.
    """
    steps: list[Step] = []
    running: list[str] = []
    for number in range(length):
        kind = rng.choice(["request", "match", "end", "evict"])
        if kind == "evict":
            steps.append(["evict", rng.randint(1, 4)])
        elif running and (kind == "end" or len(running) == 3):
            steps.append(["end", running.pop(rng.randrange(len(running)))])
        elif kind != "end":
            running.append(f"r{number}")
            tokens = [token for _ in range(rng.randint(1, 4)) for token in [rng.randrange(2)] * block_size]
            steps.append([kind, f"r{number}", [*tokens, *range(rng.randint(1, block_size - 1))]])
        if number % 8 == 7:  # 30 blocks hold the 12 of running requests and what eight steps leave in the cache
            steps.append(["evict", 30])
    return steps


prop = partial(Prop, drive=drive, judge=judge, describe=describe, in_order=("steps",))

BOTH = "request a 12, request b 34, end a, end b, "
FOUND = ", match c 120, match d 340"
LONG = "request a 123456, end a, "
THREE = "request a 12, request b 34, request c 56, end b, end c, "

EXERCISE = Exercise(
    name="PrefixCache",
    kind="class",
    properties=(
        prop(
            "match finds the longest cached beginning of a prompt, and leaves at least one token to compute",
            weight=1.0,
            fixed=[
                steps_case(2, 2, "match a 123, match b ."),
                steps_case(4, 2, "request a 12, match b 123"),
                steps_case(4, 2, "request a 12, match b 12"),
                steps_case(8, 2, "request a 12345, match b 12349, match c 123456, match d 1, match e 123"),
                steps_case(4, 1, "request a 7, request b 77, match c 7, match d 777"),
                steps_case(8, 3, "request a 123456, match b 123456, match c 1234567, match d 12345, match e 99"),
                steps_case(8, 2, "request a 1234, request b 1234, request c 123456, match d 1234567, match e 123456"),
                steps_case(4, 16, "request a 1234123412341234, match b 1234123412341234, match c 12341234123412341"),
            ],
        ),
        prop(
            "a block is found by its tokens and by every token before it, with no gap in between",
            weight=0.5,
            fixed=[
                steps_case(8, 2, "request a 1234, request b 5678, match c 56349"),
                steps_case(4, 2, "request a 12, match b 213"),
                steps_case(6, 2, "request a 12, twin b 1234, end a, evict 1, match c 12345"),
                steps_case(8, 2, "request a 12, twin b 1234, end a, evict 1, twin c 1234, match d 12345"),
                steps_case(8, 1, "request a 123, request b 21, end a, end b, match c 2230, match d 2130"),
            ],
        ),
        prop(
            "the cache is one owner of each full block it holds, and match makes the caller another",
            weight=1.0,
            judge=partial(judge, watched=["owners"]),
            fixed=[
                steps_case(2, 2, "request a 12"),
                steps_case(4, 2, "request a 123, end a"),
                steps_case(4, 2, "request a 12, match b 123, end a, end b"),
                steps_case(4, 2, "request a 12, twin b 12, end b, match c 123"),
                steps_case(4, 2, "request a 123, request b 124, end b, end a"),
                steps_case(6, 2, "request a 1234, twin b 1234, end a, end b, match c 12345, end c, evict 9"),
                steps_case(6, 2, "request a 1234, match b 1234, end b, request c 1234, end c, end a, evict 9"),
                steps_case(4, 3, "request a 1, request b 12, end a, end b"),
            ],
        ),
        prop(
            "evict frees only blocks that nobody but the cache owns, forgets them, and says how many",
            weight=0.5,
            judge=partial(judge, watched=["num_free"]),
            fixed=[
                steps_case(2, 2, "request a 12, end a, evict 1"),
                steps_case(2, 2, "evict 1, request a 12, evict 1"),
                steps_case(4, 2, "request a 12, end a, evict 0, evict 3, match b 123, evict 1"),
                steps_case(6, 2, "request a 1234, end a, match b 125, evict 2, end b, evict 2"),
                steps_case(6, 2, "request a 12, request b 34, end b, evict 1, match c 345, match d 125"),
                steps_case(8, 1, "request a 12, request b 34, request c 56, end a, end c, evict 9, match d 340"),
            ],
        ),
        prop(
            "the least recently used block goes first, and of one prompt the last block first",
            weight=1.0,
            fixed=[
                steps_case(4, 2, BOTH + "evict 1" + FOUND),
                steps_case(4, 2, BOTH + "match e 120, end e, evict 1" + FOUND),
                steps_case(4, 2, BOTH + "twin e 12, end e, evict 1" + FOUND),
                steps_case(6, 2, LONG + "evict 1, match c 1234567, end c, evict 1, match d 1234567"),
                steps_case(6, 2, LONG + "match b 1234567, end b, evict 1, evict 1, match d 1234567"),
                # what was used first goes first, be it longer or shorter
                steps_case(6, 2, LONG + "request b 78, end b, evict 3, match c 789, match d 123"),
                steps_case(6, 2, "request b 78, end b, " + LONG + "evict 1, match c 789, match d 1234567"),
                # blocks in use are passed over, and keep their place
                steps_case(6, 2, THREE + "evict 1, end a, evict 1, match d 120, match e 560"),
                *list(mixed(random.Random(1)))[1:],
            ],
            random=mixed,
        ),
    ),
)
