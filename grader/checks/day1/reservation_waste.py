"""Checks of `reservation_waste`, against a pool in which every slot is labeled by hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace

from grader.checks.support import is_number
from grader.framework import Case, Exercise, Observations, Prop, plain
from tinyllm.kv_cache.sizing import Snapshot

FIELDS = ("used", "reserved", "internal", "external")


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Make the snapshots and ask for the waste."""
    requests = [Snapshot(*request) for request in case["requests"]]
    waste = parts.reservation_waste(requests, case["num_slots"], case["region"], case["paged"])
    case["requests"] = plain(requests)  # the framework holds it against what was given
    return {
        "type": type(waste).__name__,
        "waste": {field: plain(getattr(waste, field)) for field in FIELDS if hasattr(waste, field)},
    }


def judge(case: Case, observations: Observations, fields: Sequence[str] = FIELDS[:3]) -> str | None:
    """The numbers called `fields` must be those of the labeled pool."""
    waste = observations.get("waste")
    if not isinstance(waste, dict) or set(waste) != set(FIELDS):
        return f"expected a Waste(used, reserved, internal, external), got a {observations.get('type')}"
    expected = label_slots(case)
    for field in fields:
        if not is_number(waste[field]) or waste[field] != expected[field]:
            return f"expected {field}={expected[field]}, got {field}={waste[field]!r}"
    return None


def label_slots(case: Case) -> dict[str, int]:
    """Walk over the pool slot by slot and write on each what it holds; then count the labels."""
    region = case["region"]
    labels = ["free"] * case["num_slots"]
    start = 0
    for num_tokens, final_num_tokens in case["requests"]:
        end = start if case["paged"] else start + region
        while end - start < num_tokens:
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


# ---------------------------------------------------------------- cases


def pool(requests: list[list[int]], num_slots: int, region: int, paged: bool) -> Case:
    """A case; each request is [tokens now, tokens when it ends]."""
    return {"requests": requests, "num_slots": num_slots, "region": region, "paged": paged}


def any_pools(rng: random.Random) -> Iterator[Case]:
    for paged in (False, True) * 4:
        region = rng.randint(1, 16)
        finals = [rng.randint(1, region * (3 if paged else 1)) for _ in range(8)]
        requests = [[rng.randint(0, final), final] for final in finals]
        yield pool(requests, rng.randint(0, 12 * region), region, paged)


prop = partial(Prop, drive=drive, judge=judge, weight=0.5)

EXERCISE = Exercise(
    name="reservation_waste",
    kind="function",
    properties=(
        prop(
            "contiguous: slots for tokens still to come are reserved, those for no token ever are internal waste",
            fixed=[  # just begun, halfway, nothing in the cache yet, done, and a whole region
                pool([[1, 1]], 4, 2, paged=False),
                pool([[1, 2]], 4, 2, paged=False),
                pool([[0, 2], [1, 1]], 8, 2, paged=False),
                pool([[2, 5], [8, 8], [3, 3]], 32, 8, paged=False),
            ],
        ),
        prop(
            "paged: nothing is reserved, and only the end of a request's last block is waste",
            fixed=[
                pool([[1, 1]], 4, 2, paged=True),
                pool([[2, 2]], 8, 2, paged=True),
                pool([[1, 6]], 16, 2, paged=True),
                pool([[0, 3], [1, 2]], 8, 4, paged=True),  # nothing in the cache yet, and so no block
                pool([[3, 5], [1, 2]], 9, 1, paged=True),
                pool([[10, 11], [4, 9]], 40, 4, paged=True),
            ],
        ),
        prop(
            "requests are placed in order until the first that does not fit",
            fixed=[
                pool([[1, 2]], 2, 2, paged=False),
                pool([[1, 2], [2, 2], [1, 1]], 2, 2, paged=False),
                pool([[1, 4], [1, 1]], 4, 2, paged=True),
                pool([[1, 2], [1, 1]], 3, 2, paged=True),  # room for its token, and for no block
                pool([[3, 3], [1, 1]], 2, 2, paged=True),
                pool([[3, 3], [3, 3]], 6, 2, paged=True),
                pool([[2, 3], [1, 2]], 7, 4, paged=False),  # room for all its tokens ever, and for no region
                pool([[1, 3], [2, 3], [3, 3]], 8, 3, paged=False),
                pool([[4, 4], [5, 9], [1, 3]], 8, 4, paged=True),
            ],
            random=any_pools,
        ),
        prop(
            "an end of the pool that is smaller than one region is external waste; free regions are not",
            judge=partial(judge, fields=FIELDS[3:]),
            fixed=[
                pool([], 4, 2, paged=False),
                pool([], 5, 2, paged=False),
                pool([[2, 2], [1, 2]], 11, 3, paged=False),
                pool([[5, 7]], 11, 2, paged=True),  # three blocks
                pool([[1, 1], [9, 9]], 7, 2, paged=True),  # two free blocks, which are too few for the second
            ],
            random=any_pools,
        ),
    ),
)
