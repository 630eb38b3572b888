"""Attention of one new token a sequence over its pages: the kernel of every decode step."""

from __future__ import annotations

from torch import Tensor

from tinyllm.kernels.launch import attention_arguments, row_tile
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.tiles import attend_range, group_heads, load_tile, normalised, store_tile

#: Most query heads of a group that one program takes together.
MAX_ROWS = 64


@triton.jit
def paged_decode_kernel(
    out_ptr: tl.tensor,
    q_ptr: tl.tensor,
    k_ptr: tl.tensor,
    v_ptr: tl.tensor,
    tables_ptr: tl.tensor,
    context_lens_ptr: tl.tensor,
    query_start_ptr: tl.tensor,
    scale: tl.tensor,
    window: tl.tensor,
    q_stride_token: tl.tensor,
    q_stride_head: tl.tensor,
    kv_stride_slot: tl.tensor,
    kv_stride_head: tl.tensor,
    table_stride: tl.tensor,
    NUM_HEADS: tl.constexpr,
    GQA_RATIO: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    UPCAST: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """One sequence and the query heads of one K/V head: grid [B, Hkv * tiles of the group]."""
    sequence = tl.program_id(0)
    token = tl.load(query_start_ptr + sequence).to(tl.int64)
    if tl.load(query_start_ptr + sequence + 1) - token != 1:
        return
    kv_head, heads, real = group_heads(tl.program_id(1), GQA_RATIO, ROWS)
    q = load_tile(q_ptr + token * q_stride_token, heads * q_stride_head, real, HEAD_DIM, PADDED_DIM, UPCAST)
    context_len = tl.load(context_lens_ptr + sequence).to(tl.int32)
    _, total, acc = attend_range(
        q,
        heads,  # not read: one token sees the whole range
        tl.maximum(context_len - window, 0),
        context_len,
        k_ptr + kv_head * kv_stride_head,
        v_ptr + kv_head * kv_stride_head,
        tables_ptr + sequence * table_stride,
        tl.full([ROWS], float("-inf"), tl.float32),
        tl.zeros([ROWS], tl.float32),
        tl.zeros([ROWS, PADDED_DIM], tl.float32),
        scale,
        window,
        kv_stride_slot,
        HEAD_DIM,
        PADDED_DIM,
        BLOCK_SIZE,
        TILE,
        UPCAST,
        CAUSAL=False,
    )
    out_row = out_ptr + token * NUM_HEADS * HEAD_DIM
    store_tile(out_row, heads * HEAD_DIM, real, normalised(acc, total), HEAD_DIM, PADDED_DIM)


def paged_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
    *,
    scale: float | None = None,
    sliding_window: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Attention of the sequences that have exactly one new token; `reference.paged_attention` says it in torch.

    Each K and V of the context is read once, whatever the GQA ratio (up to 64): the query heads of a group are the
    rows of one tile. So the floor is the bytes of K and V, `2 * sum(context_lens) * Hkv * D * itemsize`, over the
    memory's bandwidth: the arithmetic is a few operations a byte, far below what a GPU can do. A program walks a whole
    context, so a small batch leaves most of a GPU idle; that is what `paged_decode_split` is for.

    Args:
        q: [T, Hq, D] float16, bfloat16 or float32; D from 1 to 256, padded inside to a power of two.
        k_cache, v_cache: [num_slots, Hkv, D] in q's dtype; slot s of block b is row `b * block_size + s`.
        block_tables: [B, max_blocks], blocks of each sequence in order; entries past its context are not read.
        context_lens: [B], tokens of each sequence in the cache, the new one included. 0 gives 0.
        query_start_loc: [B + 1], where each sequence's tokens begin in q.
        block_size: P, of any size.
        scale: factor of the scores; 1 / sqrt(D) by default.
        sliding_window: a token sees itself and the `sliding_window - 1` before it; all before it by default.
        out: [T, Hq, D] contiguous, to write to; rows of sequences with more than one new token are left as they are.

    Returns:
        `out`, or a new tensor with 0 in the rows that are not this kernel's.

    Raises:
        ValueError: shapes, dtypes, strides or devices do not fit together.
        KernelsUnavailable: no kernel can run on this device.
    """
    out, arguments = attention_arguments(
        q, k_cache, v_cache, block_tables, context_lens, query_start_loc, block_size, scale, sliding_window, out
    )
    rows = row_tile(arguments["GQA_RATIO"], MAX_ROWS)
    grid = (context_lens.shape[0], k_cache.shape[1] * triton.cdiv(arguments["GQA_RATIO"], rows))
    if context_lens.shape[0]:
        paged_decode_kernel[grid](out, **arguments, ROWS=rows, num_warps=4, num_stages=3)
    return out
