"""Mistakes that people make in `paged_decode`."""

from grader.mutants import mutant, unknown_bug, variant
from tinyllm.kernels.paged_decode import launch_paged_decode, page_slots, softmax_step
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.tiles import load_tile


@triton.jit
def _ignores_the_block_table(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        slots = positions
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return highest, total, acc


@mutant
def IgnoresTheBlockTable(*arguments, **options):
    """You take a position for its slot. The blocks of a sequence lie anywhere in the pool: look up entry
    `position // BLOCK_SIZE` of the block table."""
    return launch_paged_decode(_ignores_the_block_table, *arguments, **options)


@triton.jit
def _counts_blocks_from_zero(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = positions // BLOCK_SIZE
        slots = block * BLOCK_SIZE + positions % BLOCK_SIZE
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = scores + tl.where(inside, 0.0, float("-inf"))[None, :]
        new_highest = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp2(scores - new_highest[:, None])
        correction = tl.exp2(highest - new_highest)
        total = total * correction + tl.sum(weights, 1)
        acc = acc * correction[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        highest = new_highest
    return highest, total, acc


@variant(IgnoresTheBlockTable)
def CountsBlocksFromZero(*arguments, **options):
    """The same: the number of a block in the table taken for its place in the pool."""
    return launch_paged_decode(_counts_blocks_from_zero, *arguments, **options)


@triton.jit
def _looks_up_one_block_a_tile(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + start // BLOCK_SIZE)
        slots = block * BLOCK_SIZE + start % BLOCK_SIZE + tl.arange(0, TILE)
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return highest, total, acc


@mutant
def LooksUpOneBlockATile(*arguments, **options):
    """You look up the block of a tile's first position and read on from there. A tile of positions may span
    several blocks, which are no neighbours: look up the block of each position."""
    return launch_paged_decode(_looks_up_one_block_a_tile, *arguments, **options)


@triton.jit
def _reads_on_behind_the_block(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        first_slot = tl.load(table_ptr + start // BLOCK_SIZE) * BLOCK_SIZE + start % BLOCK_SIZE
        slots = first_slot + (positions - start)
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = scores + tl.where(inside, 0.0, float("-inf"))[None, :]
        new_highest = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp2(scores - new_highest[:, None])
        correction = tl.exp2(highest - new_highest)
        total = total * correction + tl.sum(weights, 1)
        acc = acc * correction[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        highest = new_highest
    return highest, total, acc


@variant(LooksUpOneBlockATile)
def ReadsOnBehindTheBlock(*arguments, **options):
    """The same, as a distance from the tile's first slot."""
    return launch_paged_decode(_reads_on_behind_the_block, *arguments, **options)


@triton.jit
def _counts_the_rest_of_the_tile(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = block * BLOCK_SIZE + positions % BLOCK_SIZE
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return highest, total, acc


@mutant
def CountsTheRestOfTheTile(*arguments, **options):
    """The last tile reaches past the context. What is not loaded is 0, and a score of 0 has weight like any
    other: set the scores of positions that are not inside to minus infinity."""
    return launch_paged_decode(_counts_the_rest_of_the_tile, *arguments, **options)


@triton.jit
def _hides_the_rest_with_zero(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        slots = page_slots(table_ptr, positions, inside, BLOCK_SIZE)
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, 0.0)
        new_highest = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp2(scores - new_highest[:, None])
        correction = tl.exp2(highest - new_highest)
        total = total * correction + tl.sum(weights, 1)
        acc = acc * correction[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        highest = new_highest
    return highest, total, acc


@variant(CountsTheRestOfTheTile)
def HidesTheRestWithZero(*arguments, **options):
    """The same: hidden with 0 in place of minus infinity."""
    return launch_paged_decode(_hides_the_rest_with_zero, *arguments, **options)


@triton.jit
def _no_highest_score(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = block * BLOCK_SIZE + positions % BLOCK_SIZE
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        weights = tl.exp2(scores)
        total += tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype), v, acc, input_precision="ieee")
    return highest, total, acc


@mutant
def NoHighestScore(*arguments, **options):
    """You raise 2 to the scores as they are. Beyond 128 that is infinite in float32, and infinity by infinity is
    NaN: take the highest score so far out first."""
    return launch_paged_decode(_no_highest_score, *arguments, **options)


@triton.jit
def _plain_softmax(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        slots = page_slots(table_ptr, positions, inside, BLOCK_SIZE)
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = scores + tl.where(inside, 0.0, float("-inf"))[None, :]
        weights = tl.exp2(scores)
        total = tl.sum(weights, 1) + total
        acc = acc + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        highest = tl.maximum(highest, tl.max(scores, 1))
    return highest, total, acc


@variant(NoHighestScore)
def PlainSoftmax(*arguments, **options):
    """The same, written as a sum over all tiles."""
    return launch_paged_decode(_plain_softmax, *arguments, **options)


@triton.jit
def _rescales_only_the_total(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = block * BLOCK_SIZE + positions % BLOCK_SIZE
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp2(scores - new_highest[:, None])
        total = total * tl.exp2(highest - new_highest) + tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype), v, acc, input_precision="ieee")
        highest = new_highest
    return highest, total, acc


@mutant
def RescalesOnlyTheTotal(*arguments, **options):
    """A new highest score makes all earlier weights smaller. You correct their sum `total` and forget `acc`, the
    same sum with each weight times its V."""
    return launch_paged_decode(_rescales_only_the_total, *arguments, **options)


@triton.jit
def _keeps_the_old_sum(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        slots = page_slots(table_ptr, positions, inside, BLOCK_SIZE)
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = scores + tl.where(inside, 0.0, float("-inf"))[None, :]
        empty = tl.zeros([ROWS, PADDED_DIM], tl.float32)
        highest, total, new = softmax_step(scores, v, highest, total, empty)
        acc = acc + new
    return highest, total, acc


@variant(RescalesOnlyTheTotal)
def KeepsTheOldSum(*arguments, **options):
    """The same, with the step of the course and the old acc."""
    return launch_paged_decode(_keeps_the_old_sum, *arguments, **options)


@triton.jit
def _always_the_first_k_v_head(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = block * BLOCK_SIZE + positions % BLOCK_SIZE
        offsets = slots * kv_stride_slot
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return highest, total, acc


@mutant
def AlwaysTheFirstKVHead(*arguments, **options):
    """All query heads read the first K/V head. Head h of a slot begins `h * kv_stride_head` numbers behind the
    slot's first."""
    return launch_paged_decode(_always_the_first_k_v_head, *arguments, **options)


@triton.jit
def _passes_over_the_heads(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        slots = page_slots(table_ptr, positions, inside, BLOCK_SIZE)
        rows = slots * kv_stride_slot
        k, v = (
            load_tile(k_ptr, rows, inside, HEAD_DIM, PADDED_DIM),
            load_tile(v_ptr, rows, inside, HEAD_DIM, PADDED_DIM),
        )
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = scores + tl.where(inside, 0.0, float("-inf"))[None, :]
        new_highest = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp2(scores - new_highest[:, None])
        correction = tl.exp2(highest - new_highest)
        total = total * correction + tl.sum(weights, 1)
        acc = acc * correction[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        highest = new_highest
    return highest, total, acc


@variant(AlwaysTheFirstKVHead)
def PassesOverTheHeads(*arguments, **options):
    """The same, with the heads left out of the pointers."""
    return launch_paged_decode(_passes_over_the_heads, *arguments, **options)


@triton.jit
def _starts_at_zero(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = block * BLOCK_SIZE + positions % BLOCK_SIZE
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return highest, total, acc


@mutant
def StartsAtZero(*arguments, **options):
    """Your highest score starts at 0. Where all scores are far below 0 every weight becomes 0, and so does the
    output: start at minus infinity."""
    return launch_paged_decode(_starts_at_zero, *arguments, **options)


@triton.jit
def _never_below_zero(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        slots = page_slots(table_ptr, positions, inside, BLOCK_SIZE)
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = scores + tl.where(inside, 0.0, float("-inf"))[None, :]
        new_highest = tl.maximum(highest, tl.maximum(tl.max(scores, 1), 0.0))
        weights = tl.exp2(scores - new_highest[:, None])
        correction = tl.exp2(highest - new_highest)
        total = total * correction + tl.sum(weights, 1)
        acc = acc * correction[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        highest = new_highest
    return highest, total, acc


@variant(StartsAtZero)
def NeverBelowZero(*arguments, **options):
    """The same: the highest of the scores and 0."""
    return launch_paged_decode(_never_below_zero, *arguments, **options)


@triton.jit
def _powers_of_e(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = block * BLOCK_SIZE + positions % BLOCK_SIZE
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp(scores - new_highest[:, None])
        correction = tl.exp(highest - new_highest)
        total = total * correction + tl.sum(weights, 1)
        acc = acc * correction[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        highest = new_highest
    return highest, total, acc


@mutant
def PowersOfE(*arguments, **options):
    """You raise e to the scores, and they are made for powers of 2: `scale` holds log2(e) already. Use
    `tl.exp2`."""
    return launch_paged_decode(_powers_of_e, *arguments, **options)


@triton.jit
def _twice_the_logarithm(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        slots = page_slots(table_ptr, positions, inside, BLOCK_SIZE)
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * 1.4426950408889634)
        scores = scores + tl.where(inside, 0.0, float("-inf"))[None, :]
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return highest, total, acc


@variant(PowersOfE)
def TwiceTheLogarithm(*arguments, **options):
    """The same: log2(e) once more, then exp2."""
    return launch_paged_decode(_twice_the_logarithm, *arguments, **options)


@triton.jit
def _forgets_the_newest(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last - 1
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = block * BLOCK_SIZE + positions % BLOCK_SIZE
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return highest, total, acc


@unknown_bug
def ForgetsTheNewest(*arguments, **options):
    """Does not look at the last position."""
    return launch_paged_decode(_forgets_the_newest, *arguments, **options)
