"""Checks of `reservation_waste`, against a pool in which every slot is labelled by hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import ClassVar

from grader.checks.support import is_number
from grader.framework import Case, Exercise, Observations, Property, plain
from tinyllm.kv_cache.sizing import Snapshot

FIELDS = ("used", "reserved", "internal", "external")


def label_slots(case: Case) -> dict[str, int]:
    """Walk over the pool slot by slot and write on each what it holds; then count the labels."""
    region = case["region"]
    labels = ["free"] * case["num_slots"]
    start = 0
    for num_tokens, final_num_tokens in case["requests"]:
        end = start + region
        while case["paged"] and end - start < num_tokens:
            end += region
        if end > len(labels):
            break
        for slot in range(start, end):
            position = slot - start
            if position < num_tokens:
                labels[slot] = "used"
            elif not case["paged"] and position < final_num_tokens:
                labels[slot] = "reserved"
            else:
                labels[slot] = "internal"
        start = end
    whole = 0
    while whole + region <= len(labels):
        whole += region
    labels[whole:] = ["external"] * (len(labels) - whole)
    counts = Counter(labels)
    return {field: counts[field] for field in FIELDS}


def pool(requests: list[list[int]], num_slots: int, region: int, paged: bool) -> Case:
    """A case; each request is [tokens now, tokens when it ends]."""
    return {"requests": requests, "num_slots": num_slots, "region": region, "paged": paged}


def random_requests(rng: random.Random, count: int, longest: int) -> list[list[int]]:
    """Requests of 1 to `longest` tokens, each somewhere on its way there."""
    finals = [rng.randint(1, longest) for _ in range(count)]
    return [[rng.randint(1, final), final] for final in finals]


class WasteProperty(Property):
    """Calls the function on one pool, and looks at some of the four numbers.

    Attributes:
        fields: those that it looks at.
    """

    fields: ClassVar[tuple[str, ...]] = FIELDS[:3]

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Make the snapshots and ask for the waste."""
        requests = [Snapshot(*request) for request in case["requests"]]
        waste = parts.reservation_waste(requests, case["num_slots"], case["region"], case["paged"])
        return {
            "type": type(waste).__name__,
            "waste": {field: plain(getattr(waste, field)) for field in FIELDS if hasattr(waste, field)},
        }

    def judge(self, case: Case, observations: Observations) -> str | None:
        """The numbers must be those of the labelled pool."""
        waste = observations.get("waste")
        if not isinstance(waste, dict) or set(waste) != set(FIELDS):
            return f"expected a Waste(used, reserved, internal, external), got a {observations.get('type')}"
        expected = label_slots(case)
        for field in self.fields:
            if not is_number(waste[field]) or waste[field] != expected[field]:
                return f"expected {field}={expected[field]}, got {field}={waste[field]!r}"
        return None


class Contiguous(WasteProperty):
    """One region for each request, in a pool with room to spare."""

    sentence = "contiguous: slots for tokens still to come are reserved, those for no token ever are internal waste"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Requests that just began, are halfway, are done, and fill their region."""
        yield pool([[1, 1]], 4, 2, paged=False)
        yield pool([[1, 2]], 4, 2, paged=False)
        yield pool([[2, 5], [8, 8], [3, 3]], 32, 8, paged=False)
        for _ in range(4):
            region, count = rng.randint(2, 50), rng.randint(1, 8)
            yield pool(random_requests(rng, count, region), (count + 2) * region, region, paged=False)


class Paged(WasteProperty):
    """Blocks on demand, in a pool with room to spare."""

    sentence = "paged: nothing is reserved, and only the end of a request's last block is waste"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Lengths that are multiples of the block and lengths that are not; blocks of 1, 3, 4 and 16 slots."""
        yield pool([[1, 1]], 4, 2, paged=True)
        yield pool([[2, 2]], 8, 2, paged=True)
        yield pool([[1, 6]], 16, 2, paged=True)
        yield pool([[10, 11], [4, 9]], 40, 4, paged=True)
        for region in (1, 3, 16):
            requests = random_requests(rng, rng.randint(1, 8), 40)
            yield pool(requests, region * (8 + 40 * len(requests)), region, paged=True)


class FullPool(WasteProperty):
    """Pools that are too small, or just large enough."""

    sentence = "requests are placed in order until the first that does not fit"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """An exact fit, one too many, a small request behind one that is too large, and an end that is no region."""
        yield pool([[1, 2]], 2, 2, paged=False)
        yield pool([[1, 2], [2, 2]], 2, 2, paged=False)
        yield pool([[3, 3], [1, 1]], 2, 2, paged=True)
        yield pool([[1, 3], [2, 3], [3, 3]], 8, 3, paged=False)
        yield pool([[4, 4], [5, 9], [1, 3]], 8, 4, paged=True)
        for _ in range(4):
            region = rng.randint(1, 8)
            requests = random_requests(rng, 12, 4 * region)
            num_slots = region * rng.randint(2, 12) + rng.randrange(region)
            yield pool(requests, num_slots, region, paged=True)


class EndOfThePool(WasteProperty):
    """Pools that are no multiple of the region."""

    sentence = "an end of the pool that is smaller than one region is external waste; free regions are not"
    weight = 0.5
    fields = FIELDS[3:]

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """An empty pool, a full one, one smaller than a region."""
        yield pool([], 4, 2, paged=False)
        yield pool([], 5, 2, paged=False)
        yield pool([[2, 2], [1, 2]], 11, 3, paged=False)
        yield pool([[1, 1]], 2, 3, paged=True)
        for paged in (False, True) * 2:
            region = rng.randint(2, 16)
            requests = random_requests(rng, rng.randint(1, 6), region)
            yield pool(requests, region * (len(requests) + 1) + rng.randint(1, region - 1), region, paged)


EXERCISE = Exercise(
    name="reservation_waste",
    kind="function",
    properties=(Contiguous(), Paged(), FullPool(), EndOfThePool()),
)
