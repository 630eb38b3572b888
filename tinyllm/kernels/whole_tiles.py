"""`attend_pages` for a range of whole tiles, which all rows see: nothing has to be masked."""

from __future__ import annotations

from tinyllm.kernels.paged_decode import page_slots, softmax_step
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.tiles import load_tile


@triton.jit
def attend_whole_tiles(
    q: tl.tensor,
    kv_head: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    k_ptr: tl.tensor,
    v_ptr: tl.tensor,
    table_ptr: tl.tensor,
    scale: tl.tensor,
    kv_stride_slot: tl.tensor,
    kv_stride_head: tl.tensor,
    ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Attention of each row of q [ROWS, PADDED_DIM] over positions `first` to `last - 1`, a multiple of TILE of them.

    Arguments and result are those of `attend_pages`, whose masks take time where arithmetic is what limits.
    """
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(first, last, TILE):
        positions = start + tl.arange(0, TILE)
        slots = page_slots(table_ptr, positions, positions < last, BLOCK_SIZE)
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, None, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, None, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return highest, total, acc
