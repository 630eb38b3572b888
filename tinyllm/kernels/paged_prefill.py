"""Attention of chunks of new tokens, of any lengths, over their pages: the kernel of prefill."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyllm.kernels.launch import attention_arguments, check, row_tile
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.tiles import attend_range, load_tile, normalised, store_tile

#: Most query rows of one program, what its registers hold beside the accumulator and a tile of scores. Exact float32
#: products go without tensor cores and take registers of their own.
MAX_ROWS_16_BIT, MAX_ROWS_FLOAT32 = 128, 32
#: The queries of one program have at most this many bytes.
QUERY_BYTES = 32 * 1024


@triton.jit
def paged_prefill_kernel(
    out_ptr: tl.tensor,
    min_query_len: tl.tensor,
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
    """ROWS query rows of one sequence and K/V head: grid [B, Hkv, row tiles of the longest chunk].

    A row is a (token, head of the group) pair, tokens first, so that no tile is wasted on a GQA ratio that is no power
    of two.
    """
    sequence, kv_head = tl.program_id(0), tl.program_id(1)
    chunk_start = tl.load(query_start_ptr + sequence).to(tl.int64)
    query_len = (tl.load(query_start_ptr + sequence + 1) - chunk_start).to(tl.int32)
    first_row = tl.program_id(2) * ROWS
    num_rows = query_len * GQA_RATIO
    if (query_len < min_query_len) | (first_row >= num_rows):
        return
    context_len = tl.load(context_lens_ptr + sequence).to(tl.int32)
    rows = first_row + tl.arange(0, ROWS)
    real = rows < num_rows
    tokens, heads = rows // GQA_RATIO, kv_head * GQA_RATIO + rows % GQA_RATIO
    q_offsets = (chunk_start + tokens) * q_stride_token + heads * q_stride_head
    q = load_tile(q_ptr, q_offsets, real, HEAD_DIM, PADDED_DIM, UPCAST)

    before_chunk = context_len - query_len
    lowest_query = before_chunk + first_row // GQA_RATIO
    highest_query = before_chunk + (tl.minimum(first_row + ROWS, num_rows) - 1) // GQA_RATIO
    first = tl.maximum(lowest_query - window + 1, 0)
    # Whole tiles that every row sees need no mask: those before the chunk's diagonal, unless a window cuts into them.
    seen_by_all = tl.where(highest_query < window, lowest_query + 1 - first, 0)
    middle = first + seen_by_all // TILE * TILE

    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for masked in tl.static_range(2):
        highest, total, acc = attend_range(
            q,
            before_chunk + tokens,
            middle if masked else first,
            highest_query + 1 if masked else middle,
            k_ptr + kv_head * kv_stride_head,
            v_ptr + kv_head * kv_stride_head,
            tables_ptr + sequence * table_stride,
            highest,
            total,
            acc,
            scale,
            window,
            kv_stride_slot,
            HEAD_DIM,
            PADDED_DIM,
            BLOCK_SIZE,
            TILE,
            UPCAST,
            CAUSAL=masked == 1,
        )
    out_offsets = (chunk_start + tokens) * (NUM_HEADS * HEAD_DIM) + heads * HEAD_DIM
    store_tile(out_ptr, out_offsets, real, normalised(acc, total), HEAD_DIM, PADDED_DIM)


def max_rows(padded_dim: int, dtype: torch.dtype) -> int:
    """Most query rows of one program."""
    most = MAX_ROWS_FLOAT32 if dtype == torch.float32 else MAX_ROWS_16_BIT
    return min(most, QUERY_BYTES // (padded_dim * dtype.itemsize))


def paged_prefill(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
    *,
    max_query_len: int,
    min_query_len: int = 1,
    scale: float | None = None,
    sliding_window: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Causal attention of the sequences' new tokens, any number each; `reference.paged_attention` says it in torch.

    The floor is arithmetic: `4 * Hq * D` operations for each pair of a token and a position that it sees, over the
    GPU's matrix rate. A tile of 128 rows uses each K and V that it loads 128 times.

    Args:
        max_query_len: the longest chunk; an upper bound will do, but each tile past the end costs a program.
        min_query_len: sequences with fewer new tokens are left alone; 2 leaves decodes to `paged_decode`.
        context_lens: [B], at least the number of new tokens.

    The other arguments, the result and the errors are those of `paged_decode`.
    """
    check(max_query_len >= 0, f"max_query_len is {max_query_len}; it cannot be negative")
    out, arguments = attention_arguments(
        q, k_cache, v_cache, block_tables, context_lens, query_start_loc, block_size, scale, sliding_window, out
    )
    num_rows = max_query_len * arguments["GQA_RATIO"]
    rows = row_tile(num_rows, max_rows(arguments["PADDED_DIM"], q.dtype))
    grid = (context_lens.shape[0], k_cache.shape[1], triton.cdiv(num_rows, rows))
    num_warps = 8 if rows == max_rows(16, q.dtype) else 4
    if all(grid):
        paged_prefill_kernel[grid](out, min_query_len, **arguments, ROWS=rows, num_warps=num_warps, num_stages=2)
    return out
