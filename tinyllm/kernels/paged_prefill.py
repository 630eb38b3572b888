"""Attention of chunks of new tokens, of any lengths, over their pages: the kernel of prefill."""

from __future__ import annotations

from functools import cache as memoised

import torch
from torch import Tensor

from tinyllm.kernels.launch import Kernel, attention_arguments, check, row_tile
from tinyllm.kernels.paged_decode import page_slots, softmax_step
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.tiles import load_tile, normalized, store_tile
from tinyllm.kernels.whole_tiles import attend_whole_tiles

#: Most query rows of one program, what its registers hold beside the accumulator and a tile of scores. Exact float32
#: products go without tensor cores and take registers of their own.
MAX_ROWS_16_BIT, MAX_ROWS_FLOAT32 = 128, 32
#: The queries of one program have at most this many bytes.
QUERY_BYTES = 32 * 1024
#: Registers of a thread on a Hopper GPU, few enough for two programs of eight warps on one multiprocessor: the tensor
#: cores work for one while the other is at its softmax.
HOPPER_REGISTERS = 128


@triton.jit
def attend_chunk(
    q: tl.tensor,
    rows: tl.tensor,
    kv_head: tl.tensor,
    query_len: tl.tensor,
    context_len: tl.tensor,
    window: tl.tensor,
    k_ptr: tl.tensor,
    v_ptr: tl.tensor,
    table_ptr: tl.tensor,
    scale: tl.tensor,
    kv_stride_slot: tl.tensor,
    kv_stride_head: tl.tensor,
    GQA_RATIO: tl.constexpr,
    ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Causal attention of some rows of a chunk, q [ROWS, PADDED_DIM], over the pages of its sequence.

    The chunk is the last `query_len` of the sequence's `context_len` tokens. Row r belongs to the chunk's token
    r // GQA_RATIO; `rows` [ROWS] says which rows these are, in rising order. A token sees the positions that are 0 to
    `window` - 1 before its own (`window` is a very large number where there is none). The other arguments are those
    of `attend_pages`.

    Returns:
        total [ROWS] and acc [ROWS, PADDED_DIM] of `softmax_step`. The caller divides.
    """
    own = context_len - query_len + rows // GQA_RATIO
    lowest, last = tl.min(own, 0), tl.max(own, 0) + 1
    first = tl.maximum(lowest - window + 1, 0)
    # Whole tiles that every row sees need no mask: those before the chunk's diagonal, unless a window cuts into them.
    seen_by_all = tl.where(last <= window, lowest + 1 - first, 0)
    middle = first + seen_by_all // TILE * TILE
    pages = (k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head)
    highest, total, acc = attend_whole_tiles(
        q, kv_head, first, middle, *pages, ROWS, HEAD_DIM, PADDED_DIM, BLOCK_SIZE, TILE
    )
    for start in range(middle, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        offsets = page_slots(table_ptr, positions, inside, BLOCK_SIZE) * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        distance = own[:, None] - positions[None, :]
        scores = tl.where((distance >= 0) & (distance < window), scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


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
    ROWS: tl.constexpr,
    ATTEND: tl.constexpr,
) -> None:
    """ROWS query rows of one sequence and K/V head: grid [B, Hkv, row tiles of the longest chunk].

    A row is a (token, head of the group) pair, tokens first, so that no tile is wasted on a GQA ratio that is no power
    of two. The last tiles, which have the most to read, begin first: short ones then fill the gaps at the end.
    ATTEND is `attend_chunk` or another like it.
    """
    sequence, kv_head = tl.program_id(0), tl.program_id(1)
    chunk_start = tl.load(query_start_ptr + sequence).to(tl.int64)
    query_len = (tl.load(query_start_ptr + sequence + 1) - chunk_start).to(tl.int32)
    first_row = (tl.num_programs(2) - 1 - tl.program_id(2)) * ROWS
    num_rows = query_len * GQA_RATIO
    if (query_len < min_query_len) | (first_row >= num_rows):
        return
    context_len = tl.load(context_lens_ptr + sequence).to(tl.int32)
    rows = first_row + tl.arange(0, ROWS)
    real = rows < num_rows
    tokens, heads = rows // GQA_RATIO, kv_head * GQA_RATIO + rows % GQA_RATIO
    q_offsets = (chunk_start + tokens) * q_stride_token + heads * q_stride_head
    q = load_tile(q_ptr, q_offsets, real, HEAD_DIM, PADDED_DIM)
    total, acc = ATTEND(
        q,
        tl.minimum(rows, num_rows - 1),  # rows of padding do as the last one
        kv_head,
        query_len,
        context_len,
        window,
        k_ptr,
        v_ptr,
        tables_ptr + sequence * table_stride,
        scale,
        kv_stride_slot,
        kv_stride_head,
        GQA_RATIO,
        ROWS,
        HEAD_DIM,
        PADDED_DIM,
        BLOCK_SIZE,
        TILE,
    )
    out_offsets = (chunk_start + tokens) * (NUM_HEADS * HEAD_DIM) + heads * HEAD_DIM
    store_tile(out_ptr, out_offsets, real, normalized(acc, total), HEAD_DIM, PADDED_DIM)


def max_rows(padded_dim: int, dtype: torch.dtype) -> int:
    """Most query rows of one program."""
    most = MAX_ROWS_FLOAT32 if dtype == torch.float32 else MAX_ROWS_16_BIT
    return min(most, QUERY_BYTES // (padded_dim * dtype.itemsize))


def launch_options(rows: int, padded_dim: int, dtype: torch.dtype, on_hopper: bool) -> dict[str, int]:
    """Warps, stages and registers of a program with so many query rows.

    Two stages fit into the shared memory of any GPU since Ampere. Three and the limit on registers are for what was
    measured: heads of 128 in 16 bits on an H100.
    """
    full = rows == max_rows(16, dtype)
    if full and on_hopper and padded_dim == 128 and dtype.itemsize == 2:
        return {"num_warps": 8, "num_stages": 3, "maxnreg": HOPPER_REGISTERS}
    return {"num_warps": 8 if full else 4, "num_stages": 2}


@memoised
def is_hopper(device: torch.device) -> bool:
    """Whether this is an H100 or a relative of it."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) == (9, 0)


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
    """Causal attention of the sequences' new tokens, any number each.

    `reference.paged_attention_with_lse` says it in torch.

    The floor is arithmetic: `4 * Hq * D` operations for each pair of a token and a position that it sees, over the
    GPU's matrix rate. A tile of 128 rows uses each K and V that it loads 128 times.

    Args:
        max_query_len: the longest chunk; an upper bound will do, but each tile past the end costs a program.
        min_query_len: sequences with fewer new tokens are left alone; 2 leaves decodes to `paged_decode`.
        context_lens: [B], at least the number of new tokens.

    The other arguments, the result and the errors are those of `paged_decode`.
    """
    where = (q, k_cache, v_cache, block_tables, context_lens, query_start_loc, block_size)
    return launch_paged_prefill(attend_chunk, *where, max_query_len, min_query_len, scale, sliding_window, out)


def launch_paged_prefill(
    attend: Kernel,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
    max_query_len: int,
    min_query_len: int = 1,
    scale: float | None = None,
    sliding_window: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Check the arguments of `paged_prefill` and launch the kernel on `attend`, which is like `attend_chunk`.

    Raises: as `paged_prefill`.
    """
    check(max_query_len >= 0, f"max_query_len is {max_query_len}; it cannot be negative")
    out, arguments = attention_arguments(
        q, k_cache, v_cache, block_tables, context_lens, query_start_loc, block_size, scale, sliding_window, out
    )
    num_rows = max_query_len * arguments["GQA_RATIO"]
    rows = row_tile(num_rows, max_rows(arguments["PADDED_DIM"], q.dtype))
    grid = (context_lens.shape[0], k_cache.shape[1], triton.cdiv(num_rows, rows))
    options = launch_options(rows, arguments["PADDED_DIM"], q.dtype, is_hopper(q.device))
    if all(grid):
        paged_prefill_kernel[grid](out, min_query_len, **arguments, ROWS=rows, ATTEND=attend, **options)
    return out
