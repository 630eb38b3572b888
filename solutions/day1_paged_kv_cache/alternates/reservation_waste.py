"""Other right ways to `reservation_waste`."""

from collections.abc import Sequence
from itertools import accumulate, takewhile

from grader.mutants import alternate
from tinyllm.kv_cache.sizing import Snapshot, Waste


@alternate
def fills_a_map_of_the_pool(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """Writes a letter on each slot and counts the letters."""
    pool = ""
    for num_tokens, final_num_tokens in requests:
        text = "u" * num_tokens if paged else "u" * num_tokens + "r" * (final_num_tokens - num_tokens)
        text += "i" * (-len(text) % region)
        if len(pool) + len(text) > num_slots:
            break
        pool += text
    return Waste(pool.count("u"), pool.count("r"), pool.count("i"), num_slots % region)


@alternate
def sums_over_those_that_fit(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """Finds how many requests fit from a running sum of regions; everything else is a difference of sums."""
    regions = [(request.num_tokens - 1) // region + 1 if paged else 1 for request in requests]
    ends = list(takewhile(lambda end: end <= num_slots // region, accumulate(regions)))
    placed = requests[: len(ends)]
    used = sum(request.num_tokens for request in placed)
    reserved = 0 if paged else sum(request.final_num_tokens for request in placed) - used
    taken = ends[-1] * region if ends else 0
    return Waste(used, reserved, taken - used - reserved, num_slots % region)
