"""What the attention kernels share: look up pages, load a tile, fold it into a running softmax.

All of them work on a tile of query rows of one sequence that share a K/V head, and walk over the sequence's positions
TILE at a time. The page is looked up for each position, so TILE has nothing to do with the block size: any block size
and any order of blocks will do.

Scores are kept in base 2 (`scale` includes log2 e), since `exp2` is one instruction.
"""

from __future__ import annotations

from tinyllm.kernels.runtime import tl, triton


@triton.jit
def page_slots(table_ptr: tl.tensor, positions: tl.tensor, inside: tl.tensor, BLOCK_SIZE: tl.constexpr) -> tl.tensor:
    """[TILE] int64: the slots of positions of one sequence, through its row of the block table."""
    block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
    return block.to(tl.int64) * BLOCK_SIZE + positions % BLOCK_SIZE  # int64: slot * stride passes 2**31


@triton.jit
def load_tile(
    ptr: tl.tensor,
    offsets: tl.tensor,
    inside: tl.tensor,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    UPCAST: tl.constexpr,
) -> tl.tensor:
    """[rows, PADDED_DIM]: one vector a row, 0 outside and in the padding."""
    dims = tl.arange(0, PADDED_DIM)
    mask = inside[:, None] & (dims < HEAD_DIM)[None, :]
    tile = tl.load(ptr + offsets[:, None] + dims[None, :], mask=mask, other=0.0)
    return tile.to(tl.float32) if UPCAST else tile


@triton.jit
def store_tile(
    ptr: tl.tensor,
    offsets: tl.tensor,
    inside: tl.tensor,
    tile: tl.tensor,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
) -> None:
    """Write one vector a row, in the dtype that `ptr` has."""
    dims = tl.arange(0, PADDED_DIM)
    mask = inside[:, None] & (dims < HEAD_DIM)[None, :]
    tl.store(ptr + offsets[:, None] + dims[None, :], tile.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def online_softmax_step(
    scores: tl.tensor, v: tl.tensor, highest: tl.tensor, total: tl.tensor, acc: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Fold one tile into the running softmax of each row.

    Args:
        scores: [ROWS, TILE] in base 2, -inf where a row may not look.
        v: [TILE, PADDED_DIM].
        highest: [ROWS], the highest score so far; -inf before the first.
        total: [ROWS], sum of 2 ** (score - highest) so far.
        acc: [ROWS, PADDED_DIM], the same sum with each term times its V.
    """
    new_highest = tl.maximum(highest, tl.max(scores, 1))
    shift = tl.where(new_highest == float("-inf"), 0.0, new_highest)  # a row that has seen nothing: no inf - inf
    weights = tl.exp2(scores - shift[:, None])
    correction = tl.exp2(highest - shift)
    total = total * correction + tl.sum(weights, 1)
    acc = tl.dot(weights.to(v.dtype), v, acc * correction[:, None], input_precision="ieee")
    return new_highest, total, acc


@triton.jit
def attend_range(
    q: tl.tensor,
    query_positions: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    k_ptr: tl.tensor,
    v_ptr: tl.tensor,
    table_ptr: tl.tensor,
    highest: tl.tensor,
    total: tl.tensor,
    acc: tl.tensor,
    scale: tl.tensor,
    window: tl.tensor,
    kv_stride_slot: tl.tensor,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    UPCAST: tl.constexpr,
    CAUSAL: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Fold positions `first` to `last - 1` of one sequence into the running softmax.

    Args:
        q: [ROWS, PADDED_DIM].
        query_positions: [ROWS], each row's own position; read only where CAUSAL.
        k_ptr, v_ptr: the pool, at the K/V head of these rows.
        table_ptr: the sequence's row of the block tables.
        CAUSAL: hide positions after the row's own and those that its window has left behind; otherwise every row
            sees the whole range.
    """
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        offsets = page_slots(table_ptr, positions, inside, BLOCK_SIZE) * kv_stride_slot
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM, UPCAST)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM, UPCAST)
        visible = inside[None, :]
        if CAUSAL:
            distance = query_positions[:, None] - positions[None, :]
            visible = visible & (distance >= 0) & (distance < window)
        # "ieee": on float32 a dot would otherwise drop to TF32 on NVIDIA GPUs.
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(visible, scores, float("-inf"))
        highest, total, acc = online_softmax_step(scores, v, highest, total, acc)
    return highest, total, acc


@triton.jit
def normalised(acc: tl.tensor, total: tl.tensor) -> tl.tensor:
    """The softmax average; 0 for a row that saw nothing."""
    return acc / tl.where(total == 0.0, 1.0, total)[:, None]


@triton.jit
def group_heads(
    program: tl.tensor, GQA_RATIO: tl.constexpr, ROWS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The K/V head of a decode program, its ROWS query heads, and which of these are real."""
    tiles_per_group: tl.constexpr = (GQA_RATIO + ROWS - 1) // ROWS
    kv_head = program // tiles_per_group
    in_group = (program % tiles_per_group) * ROWS + tl.arange(0, ROWS)
    return kv_head, kv_head * GQA_RATIO + in_group, in_group < GQA_RATIO
