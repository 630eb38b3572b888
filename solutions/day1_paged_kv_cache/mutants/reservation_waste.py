"""Mistakes that people make in `reservation_waste`."""

from collections.abc import Sequence

from grader.mutants import mutant, unknown_bug, variant
from tinyllm.kv_cache.sizing import Snapshot, Waste


@mutant
def rounds_blocks_down(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """You round the number of blocks down, so that the tokens which fill no whole block have nowhere to go."""
    used = reserved = internal = taken = 0
    for request in requests:
        num_regions = request.num_tokens // region if paged else 1
        if taken + num_regions * region > num_slots:
            break
        taken += num_regions * region
        will_use = request.num_tokens if paged else request.final_num_tokens
        used += request.num_tokens
        reserved += will_use - request.num_tokens
        internal += num_regions * region - will_use
    return Waste(used, reserved, internal, num_slots % region)


@variant(rounds_blocks_down)
def truncates_blocks(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """The same with `int`, and a running total of what is left."""
    left, used, reserved, internal = num_slots, 0, 0, 0
    for num_tokens, final_num_tokens in requests:
        size = int(num_tokens / region) * region if paged else region
        if size > left:
            break
        left -= size
        used += num_tokens
        if paged:
            internal += size - num_tokens
        else:
            reserved += final_num_tokens - num_tokens
            internal += size - final_num_tokens
    return Waste(used, reserved, internal, num_slots % region)


@mutant
def adds_a_block_at_a_border(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """A request whose tokens fill its blocks exactly gets one block too many from you: look at your rounding up."""
    used = reserved = internal = taken = 0
    for request in requests:
        num_regions = request.num_tokens // region + 1 if paged else 1
        if taken + num_regions * region > num_slots:
            break
        taken += num_regions * region
        will_use = request.num_tokens if paged else request.final_num_tokens
        used += request.num_tokens
        reserved += will_use - request.num_tokens
        internal += num_regions * region - will_use
    return Waste(used, reserved, internal, num_slots % region)


@variant(adds_a_block_at_a_border)
def always_has_a_partial_block(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """The same, as full blocks and a partly filled one that is always there."""
    left, used, reserved, internal = num_slots, 0, 0, 0
    for num_tokens, final_num_tokens in requests:
        empty = region - num_tokens % region if paged else region - final_num_tokens
        size = num_tokens + empty if paged else region
        if left < size:
            break
        left, used, internal = left - size, used + num_tokens, internal + empty
        reserved += 0 if paged else final_num_tokens - num_tokens
    return Waste(used, reserved, internal, num_slots % region)


@mutant
def calls_reserved_internal(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """You call every empty slot of a region internal waste. Some of them are kept for tokens that this request will
    still produce: the snapshot says how many."""
    used = internal = taken = 0
    for request in requests:
        num_regions = -(-request.num_tokens // region) if paged else 1
        if taken + num_regions * region > num_slots:
            break
        taken += num_regions * region
        used += request.num_tokens
        internal += num_regions * region - request.num_tokens
    return Waste(used, 0, internal, num_slots % region)


@variant(calls_reserved_internal)
def takes_what_is_not_used(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """The same, as the difference of two sums."""
    sizes = [(request.num_tokens + region - 1) // region * region if paged else region for request in requests]
    placed = 0
    while placed < len(sizes) and sum(sizes[: placed + 1]) <= num_slots:
        placed += 1
    used = sum(request.num_tokens for request in requests[:placed])
    return Waste(used, 0, sum(sizes[:placed]) - used, num_slots % region)


@mutant
def reserves_blocks_ahead(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """You give a paged request blocks for all the tokens that it will ever have. Paging allocates for those it has
    now."""
    used = reserved = internal = taken = 0
    for request in requests:
        num_regions = -(-request.final_num_tokens // region) if paged else 1
        if taken + num_regions * region > num_slots:
            break
        taken += num_regions * region
        used += request.num_tokens
        reserved += request.final_num_tokens - request.num_tokens
        internal += num_regions * region - request.final_num_tokens
    return Waste(used, reserved, internal, num_slots % region)


@variant(reserves_blocks_ahead)
def sizes_by_the_final_length(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """The same, with the sizes worked out first."""
    sizes = []
    for request in requests:
        size = region
        while paged and size < request.final_num_tokens:
            size += region
        sizes.append(size)
    used = reserved = internal = 0
    for request, size in zip(requests, sizes, strict=True):
        if used + reserved + internal + size > num_slots:
            break
        used += request.num_tokens
        reserved += request.final_num_tokens - request.num_tokens
        internal += size - request.final_num_tokens
    return Waste(used, reserved, internal, num_slots % region)


@mutant
def calls_free_regions_waste(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """You call all slots that are still free external waste. A free region can be given to the next request; only
    slots that can be given to nobody are lost."""
    used = reserved = internal = taken = 0
    for request in requests:
        num_regions = -(-request.num_tokens // region) if paged else 1
        if taken + num_regions * region > num_slots:
            break
        taken += num_regions * region
        will_use = request.num_tokens if paged else request.final_num_tokens
        used += request.num_tokens
        reserved += will_use - request.num_tokens
        internal += num_regions * region - will_use
    return Waste(used, reserved, internal, num_slots - taken)


@variant(calls_free_regions_waste)
def calls_what_is_left_waste(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """The same, counting down."""
    left, used, reserved, internal = num_slots, 0, 0, 0
    for num_tokens, final_num_tokens in requests:
        size = (num_tokens + region - 1) // region * region if paged else region
        if size > left:
            break
        left -= size
        used += num_tokens
        reserved += 0 if paged else final_num_tokens - num_tokens
        internal += size - (num_tokens if paged else final_num_tokens)
    return Waste(used, reserved, internal, left)


@mutant
def skips_what_does_not_fit(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """You go on after a request that does not fit and place smaller ones behind it. Requests are served in order:
    the first that does not fit ends the placing."""
    used = reserved = internal = taken = 0
    for request in requests:
        num_regions = -(-request.num_tokens // region) if paged else 1
        if taken + num_regions * region > num_slots:
            continue
        taken += num_regions * region
        will_use = request.num_tokens if paged else request.final_num_tokens
        used += request.num_tokens
        reserved += will_use - request.num_tokens
        internal += num_regions * region - will_use
    return Waste(used, reserved, internal, num_slots % region)


@variant(skips_what_does_not_fit)
def places_all_that_fit(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """The same, choosing the requests first."""
    placed, left = [], num_slots // region
    for request in requests:
        blocks = (request.num_tokens + region - 1) // region if paged else 1
        if blocks <= left:
            placed.append((request, blocks))
            left -= blocks
    used = sum(request.num_tokens for request, _ in placed)
    reserved = 0 if paged else sum(request.final_num_tokens - request.num_tokens for request, _ in placed)
    internal = region * sum(blocks for _, blocks in placed) - used - reserved
    return Waste(used, reserved, internal, num_slots % region)


@mutant
def ignores_the_pool_size(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """You place every request, also when the pool is full."""
    used = reserved = internal = 0
    for request in requests:
        num_regions = -(-request.num_tokens // region) if paged else 1
        will_use = request.num_tokens if paged else request.final_num_tokens
        used += request.num_tokens
        reserved += will_use - request.num_tokens
        internal += num_regions * region - will_use
    return Waste(used, reserved, internal, num_slots % region)


@variant(ignores_the_pool_size)
def sums_over_all_requests(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """The same, as sums."""
    used = sum(request.num_tokens for request in requests)
    if paged:
        return Waste(used, 0, sum(-request.num_tokens % region for request in requests), num_slots % region)
    final = sum(request.final_num_tokens for request in requests)
    return Waste(used, final - used, region * len(requests) - final, num_slots % region)


@mutant
def refuses_an_exact_fit(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """A request that fills the pool to its last slot still fits; you turn it away."""
    used = reserved = internal = taken = 0
    for request in requests:
        num_regions = -(-request.num_tokens // region) if paged else 1
        if taken + num_regions * region >= num_slots:
            break
        taken += num_regions * region
        will_use = request.num_tokens if paged else request.final_num_tokens
        used += request.num_tokens
        reserved += will_use - request.num_tokens
        internal += num_regions * region - will_use
    return Waste(used, reserved, internal, num_slots % region)


@variant(refuses_an_exact_fit)
def keeps_a_slot_free(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """The same, counting down to a last slot that is never given."""
    left, used, reserved, internal = num_slots, 0, 0, 0
    for num_tokens, final_num_tokens in requests:
        size = (num_tokens + region - 1) // region * region if paged else region
        if left - size < 1:
            break
        left -= size
        used += num_tokens
        reserved += 0 if paged else final_num_tokens - num_tokens
        internal += size - (num_tokens if paged else final_num_tokens)
    return Waste(used, reserved, internal, num_slots % region)


@unknown_bug
def forgets_the_end_of_the_pool(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """Takes the pool for a whole number of regions, and so finds no external waste at all."""
    used = reserved = internal = taken = 0
    for request in requests:
        num_regions = -(-request.num_tokens // region) if paged else 1
        if taken + num_regions * region > num_slots:
            break
        taken += num_regions * region
        will_use = request.num_tokens if paged else request.final_num_tokens
        used += request.num_tokens
        reserved += will_use - request.num_tokens
        internal += num_regions * region - will_use
    return Waste(used, reserved, internal, 0)
