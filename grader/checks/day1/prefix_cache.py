"""Checks of `PrefixCache`, against a plain list of whole prefixes. How blocks are named is never asserted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

from grader.checks.oracles.prefixes import PrefixBooks
from grader.checks.support import ANY_ERROR, count_of, cut, is_int_list, owner_counts, pool_of, shuffled
from grader.framework import Case, Exercise, Observations, Property, outcome_of, plain, short
from tinyllm.kv_cache.allocator import BlockAllocator

Step = list[Any]  # see `in_words`


class StepsProperty(Property):
    """Runs requests over a small pool; what is found, and how many are evicted, is always held against the books.

    Attributes:
        watches: what is looked at in the pool after each step.
    """

    in_order = ("steps",)
    watches: ClassVar[frozenset[str]] = frozenset()

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """The pool is the reference's. Stops where an answer leaves nothing to go on with."""
        pool, size = pool_of(case["order"]), case["block_size"]
        cache = parts.PrefixCache(pool, size)
        held: dict[str, list[int]] = {}
        steps = []
        for kind, *arguments in case["steps"]:
            seen: dict[str, Any] = {}
            if kind == "evict":
                seen["evicted"] = plain(cache.evict(arguments[0]))
            elif kind == "end":
                seen["outcome"] = outcome_of(partial(free_all, pool, held.pop(arguments[0])), *ANY_ERROR)
            else:
                name, tokens = arguments
                hit = [] if kind == "twin" else plain(cache.match(tokens))
                seen["hit"] = hit
                if not is_int_list(hit):
                    steps.append(seen)
                    break
                missing = blocks_to_allocate(kind, len(tokens), len(hit), size)
                seen["outcome"] = outcome_of(partial(pool.allocate, missing), *ANY_ERROR)
                if "value" in seen["outcome"]:
                    held[name] = hit + seen["outcome"]["value"]
                if "value" in seen["outcome"] and kind != "look up":
                    cache.insert(tokens, list(held[name]))
            seen["owners"], seen["num_free"] = owner_counts(pool, len(case["order"])), pool.num_free
            steps.append(plain(seen))
            if "raised" in seen.get("outcome", {}):
                break
        return steps

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Follow the steps in the books."""
        books = PrefixBooks(case["block_size"], len(case["order"]))
        for number, step in enumerate(case["steps"]):
            seen = observations[number]
            problem = judge_step(books, step, seen)
            if not problem and "owners" in self.watches:
                problem = books.owners_problem(seen["owners"])
            if not problem and "num_free" in self.watches:
                problem = books.free_problem(seen["num_free"])
            if problem:
                return f"step {number + 1}, {in_words(step)}: {problem}"
        return None

    def describe(self, case: Case) -> str:
        """The steps in words."""
        pool = f"{count_of(len(case['order']), 'block')} of {count_of(case['block_size'], 'slot')}"
        return cut(f"{pool}; " + "; ".join(map(in_words, case["steps"])))


def blocks_to_allocate(kind: str, num_tokens: int, num_hit: int, block_size: int) -> int:
    """Blocks that a step takes from the pool, beside those that were found."""
    return 0 if kind == "look up" else max(0, -(-num_tokens // block_size) - num_hit)


def free_all(pool: BlockAllocator, block_ids: list[int]) -> None:
    """Give up blocks, the last one first."""
    for block_id in reversed(block_ids):
        pool.free(block_id)


def judge_step(books: PrefixBooks, step: Step, seen: Any) -> str | None:
    """Hold one step against the books, and write it down."""
    kind, *arguments = step
    outcome = seen.get("outcome", {})
    if kind == "evict":
        expected = books.evict(arguments[0])
        if seen["evicted"] != expected:
            return f"evict must return {expected}, the number of blocks that it freed; got {short(seen['evicted'])}"
    elif kind == "end":
        del books.held[arguments[0]]
        if "raised" in outcome:
            return "a block that this request still owned was free already"
    else:
        name, tokens = arguments
        hit = [] if kind == "twin" else books.match(tokens)
        if not is_int_list(seen["hit"]):
            return f"match must return a list of block ids, got {short(seen['hit'])}"
        if len(seen["hit"]) != len(hit):
            return f"match must find {count_of(len(hit), 'cached block')}, got {len(seen['hit'])}"
        if seen["hit"] != hit:
            return "match must return the blocks that were inserted for these tokens, in order; it returned others"
        if "raised" in outcome:
            return "the pool has too few free blocks for this request; the cache must have kept some"
        fresh = outcome["value"]
        if not is_int_list(fresh) or len(fresh) != blocks_to_allocate(kind, len(tokens), len(hit), books.block_size):
            return "the pool did not hand out the blocks that this request needs"
        books.held[name] = hit + fresh
        books.names |= {block_id: f"block {len(hit) + i} of {name}" for i, block_id in enumerate(fresh)}
        if kind != "look up":
            books.insert(tokens, books.held[name])
    return None


def in_words(step: Step) -> str:
    """A step as a learner reads it."""
    kind, *arguments = step
    if kind == "evict":
        return f"evict({arguments[0]})"
    if kind == "end":
        return f"the end of {arguments[0]}, which frees its blocks"
    name, tokens = arguments
    todo = {
        "request": "match, allocate and insert",
        "twin": "allocate and insert (computed without a match)",
        "look up": "match",
    }
    return f"{todo[kind]} for {name} with tokens {short(tokens)}"


def case_of(num_blocks: int | list[int], block_size: int, *steps: Step) -> Case:
    """A case over a pool of blocks in this order, or of so many in reverse order."""
    order = list(range(num_blocks))[::-1] if isinstance(num_blocks, int) else num_blocks
    return {"block_size": block_size, "order": order, "steps": list(steps)}


def request(name: str, *tokens: int) -> Step:
    """A request that matches its tokens, allocates what is missing, computes it and inserts it."""
    return ["request", name, list(tokens)]


def twin(name: str, *tokens: int) -> Step:
    """A request that was computed beside another with the same beginning, and so did not match."""
    return ["twin", name, list(tokens)]


def look_up(name: str, *tokens: int) -> Step:
    """A match alone."""
    return ["look up", name, list(tokens)]


def end(name: str) -> Step:
    """A request gives its blocks up."""
    return ["end", name]


def evict(num_blocks: int) -> Step:
    """Make room."""
    return ["evict", num_blocks]


class FindsTheBeginning(StepsProperty):
    """Lookups of prompts that begin like one that was seen."""

    sentence = "match finds the longest cached beginning of a prompt, and leaves at least one token to compute"
    weight = 1.0

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """An empty cache, the same prompt again, longer and shorter ones, one that goes another way."""
        yield case_of(2, 2, look_up("a", 1, 2, 3))
        yield case_of(4, 2, request("a", 1, 2), look_up("b", 1, 2, 3))
        yield case_of(4, 2, request("a", 1, 2), look_up("b", 1, 2))
        yield case_of(8, 2, request("a", 1, 2, 3, 4, 5), look_up("b", 1, 2, 3, 9), look_up("c", 1, 2, 3, 4, 5, 6))
        yield case_of(4, 1, request("a", 7), request("b", 7, 7), look_up("c", 7))
        for block_size in (1, 3, 16):
            tokens = rng.choices(range(5), k=block_size * rng.randint(2, 4))
            cut = rng.randint(1, len(tokens))
            other = [*tokens[:cut], 5, *tokens[cut:]]
            steps = [request("a", *tokens), look_up("b", *tokens), look_up("c", *other), look_up("d", *tokens[:cut])]
            yield case_of(shuffled(rng, 24), block_size, *steps)


class KnowsWhatCameBefore(StepsProperty):
    """Equal blocks in different company."""

    sentence = "a block is found by its tokens and by every token before it, with no gap in between"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Equal blocks after different ones, tokens in another order, and a beginning that has been evicted."""
        yield case_of(8, 2, request("a", 1, 2, 3, 4), request("b", 5, 6, 7, 8), look_up("c", 5, 6, 3, 4, 9))
        yield case_of(4, 2, request("a", 1, 2), look_up("b", 2, 1, 3))
        gap = [request("a", 1, 2), twin("b", 1, 2, 3, 4), end("a"), evict(1)]
        yield case_of(6, 2, *gap, look_up("c", 1, 2, 3, 4, 5))
        for block_size in (1, 3):
            first, second, third = ([value] * block_size for value in rng.sample(range(9), 3))
            steps = [request("a", *first, *second, *third), request("b", *second, *first), end("a"), end("b")]
            steps += [look_up("c", *second, *second, *third, 0), look_up("d", *second, *first, *third, 0)]
            yield case_of(shuffled(rng, 8), block_size, *steps)


class EveryOwnerCounts(StepsProperty):
    """Reference counts through a request's life."""

    sentence = "the cache is one owner of each full block it holds, and match makes the caller another"
    weight = 1.0
    watches = frozenset({"owners"})

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """A partly filled last block, a hit, the same content computed twice, the same request inserted again."""
        yield case_of(2, 2, request("a", 1, 2))
        yield case_of(4, 2, request("a", 1, 2, 3), end("a"))
        yield case_of(4, 2, request("a", 1, 2), look_up("b", 1, 2, 3), end("a"), end("b"))
        yield case_of(4, 2, request("a", 1, 2), twin("b", 1, 2), end("b"), look_up("c", 1, 2, 3))
        yield case_of(4, 2, request("a", 1, 2, 3), request("b", 1, 2, 4), end("b"), end("a"))
        for block_size in (1, 3, 16):
            tokens = rng.sample(range(100), k=block_size * rng.randint(1, 3) + rng.randint(0, block_size - 1))
            steps = [request("a", *tokens), twin("b", *tokens), look_up("c", *tokens, 1), end("a"), end("c")]
            yield case_of(shuffled(rng, 12), block_size, *steps, look_up("d", *tokens, 2), end("b"), end("d"))


class EvictsTheUnused(StepsProperty):
    """Eviction while requests run."""

    sentence = "evict frees only blocks that nobody but the cache owns, forgets them, and says how many"
    weight = 0.5
    watches = frozenset({"num_free"})

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Nothing to evict, everything in use, more wanted than there is, and a lookup afterwards."""
        yield case_of(2, 2, request("a", 1, 2), end("a"), evict(1))
        yield case_of(2, 2, request("a", 1, 2), evict(1))
        yield case_of(4, 2, request("a", 1, 2), end("a"), evict(0), evict(3), look_up("b", 1, 2, 3), evict(1))
        yield case_of(6, 2, request("a", 1, 2, 3, 4), end("a"), look_up("b", 1, 2, 5), evict(2), end("b"), evict(2))
        for block_size in (1, 3):
            prompts = [range(10 * i, 10 * i + 2 * block_size) for i in range(3)]
            steps = [request(name, *prompt) for name, prompt in zip("abc", prompts, strict=True)]
            steps += [end(name) for name in rng.sample("abc", 2)]
            yield case_of(shuffled(rng, 6), block_size, *steps, evict(9), look_up("d", *prompts[1], 0))


class OldestFirst(StepsProperty):
    """The order of eviction, seen in what can still be found."""

    sentence = "the least recently used block goes first, and of one prompt the last block first"
    weight = 1.0

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Two prompts in order, one of them hit or inserted again, a prompt of two blocks; then requests at random."""
        both = [request("a", 1, 2), request("b", 3, 4), end("a"), end("b")]
        found = [look_up("c", 1, 2, 0), look_up("d", 3, 4, 0)]
        yield case_of(4, 2, *both, evict(1), *found)
        yield case_of(4, 2, *both, look_up("e", 1, 2, 0), end("e"), evict(1), *found)
        yield case_of(4, 2, *both, twin("e", 1, 2), end("e"), evict(1), *found)
        long = [request("a", 1, 2, 3, 4), end("a")]
        yield case_of(4, 2, *long, evict(1), look_up("c", 1, 2, 3, 4, 5))
        used = [look_up("b", 1, 2, 3, 4, 5), end("b")]
        yield case_of(4, 2, *long, *used, evict(1), look_up("c", 1, 2, 3, 4, 5))
        for block_size, length in ((2, 16), (3, 40), (4, 80)):
            yield case_of(shuffled(rng, 30), block_size, *random_steps(rng, block_size, length))


def random_steps(rng: random.Random, block_size: int, length: int) -> list[Step]:
    """Requests that begin alike in many ways, at most three at once, with evictions between them.

    No prompt ends with a full block: what a hit leaves over is another property.
    """
    steps: list[Step] = []
    running: list[str] = []
    for number in range(length):
        kind = rng.choice(["request", "look up", "end", "evict"])
        if kind == "evict":
            steps.append(evict(rng.randint(1, 4)))
        elif kind == "end" or len(running) == 3:
            if running:
                steps.append(end(running.pop(rng.randrange(len(running)))))
        else:
            running.append(f"r{number}")
            blocks = [[rng.randrange(2)] * block_size for _ in range(rng.randint(1, 4))]
            tokens = [token for block in blocks for token in block]
            steps.append([kind, f"r{number}", [*tokens, *range(rng.randint(1, block_size - 1))]])
        if number % 8 == 7:  # 30 blocks hold the 12 of running requests and what eight steps leave in the cache
            steps.append(evict(30))
    return steps


EXERCISE = Exercise(
    name="PrefixCache",
    kind="class",
    properties=(FindsTheBeginning(), KnowsWhatCameBefore(), EveryOwnerCounts(), EvictsTheUnused(), OldestFirst()),
)
