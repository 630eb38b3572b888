"""Decode over pages with each context cut into splits that run side by side (flash-decoding).

`paged_decode` gives each sequence and K/V head one program. With few sequences that leaves most of a GPU idle, and
with contexts of different lengths all wait for the longest. Here the first kernel computes each split's output and
log-sum-exp, and the second merges them as `reference.merge_attention_states` does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tinyllm.kernels.launch import Kernel, attention_arguments, check, row_tile
from tinyllm.kernels.paged_decode import MAX_ROWS, attend_pages
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.tiles import group_heads, load_tile, normalized, store_tile

#: Fewer positions than this are not worth a program of their own.
MIN_SPLIT = 256
#: Programs for each multiprocessor: two run at a time, two more even out unequal lengths.
PROGRAMS_PER_PROCESSOR = 4
#: The reduce kernel holds all splits of one head in registers: this many numbers at most.
MAX_REDUCED = 16 * 1024


@triton.jit
def attend_split(
    q: tl.tensor,
    kv_head: tl.tensor,
    split: tl.tensor,
    split_size: tl.tensor,
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
) -> tuple[tl.tensor, tl.tensor]:
    """Attention of each row of q over one split: the `split`-th `split_size` of positions `first` to `last - 1`.

    The last split may be shorter. The other arguments are those of `attend_pages`.

    Returns:
        The split's own softmax average [ROWS, PADDED_DIM], and the log-sum-exp of its scores in base 2 [ROWS].
    """
    start = first + split * split_size
    stop = tl.minimum(start + split_size, last)
    pages = (k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head)
    highest, total, acc = attend_pages(q, kv_head, start, stop, *pages, ROWS, HEAD_DIM, PADDED_DIM, BLOCK_SIZE, TILE)
    return normalized(acc, total), highest + tl.log2(total)


@triton.jit
def reduce_splits(
    partial_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    num_written: tl.tensor,
    stride_split: tl.tensor,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
) -> tl.tensor:
    """[PADDED_DIM]: the outputs of one query head's splits, merged by their log-sum-exps of base 2.

    Split i's lse is `i * stride_split` numbers behind `lse_ptr`, and its output `i * stride_split * HEAD_DIM` behind
    `partial_ptr`. Only the first `num_written` splits have been written, perhaps none (then the result is 0); what
    stands behind them is whatever was in memory. PADDED_SPLITS is a power of two that is large enough.
    """
    splits = tl.arange(0, PADDED_SPLITS)
    written = splits < num_written
    lse = tl.load(lse_ptr + splits * stride_split, mask=written, other=float("-inf"))
    highest = tl.max(lse, 0)
    shares = tl.exp2(lse - tl.where(highest == float("-inf"), 0.0, highest))
    partial = load_tile(partial_ptr, splits * stride_split * HEAD_DIM, written, HEAD_DIM, PADDED_DIM)
    total = tl.sum(shares, 0)
    return tl.sum(partial * shares[:, None], 0) / tl.where(total == 0.0, 1.0, total)


@triton.jit
def split_kernel(
    partial_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    split_size: tl.tensor,
    num_splits: tl.tensor,
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
    """One split of one sequence, for the query heads of one K/V head: grid [B, Hkv * tiles of the group, splits].

    Writes partial [B, splits, Hq, D] and the base-2 lse [B, splits, Hq], both float32, where a split has a position.
    ATTEND is `attend_split` or another like it.
    """
    sequence, split = tl.program_id(0), tl.program_id(2)
    token = tl.load(query_start_ptr + sequence).to(tl.int64)
    context_len = tl.load(context_lens_ptr + sequence).to(tl.int32)
    first = tl.maximum(context_len - window, 0)
    if (tl.load(query_start_ptr + sequence + 1) - token != 1) | (first + split * split_size >= context_len):
        return
    kv_head, heads, real = group_heads(tl.program_id(1), GQA_RATIO, ROWS)
    q = load_tile(q_ptr + token * q_stride_token, heads * q_stride_head, real, HEAD_DIM, PADDED_DIM)
    average, lse = ATTEND(
        q,
        kv_head,
        split,
        split_size,
        first,
        context_len,
        k_ptr,
        v_ptr,
        tables_ptr + sequence * table_stride,
        scale,
        kv_stride_slot,
        kv_stride_head,
        ROWS,
        HEAD_DIM,
        PADDED_DIM,
        BLOCK_SIZE,
        TILE,
    )
    rows = (sequence.to(tl.int64) * num_splits + split) * NUM_HEADS + heads
    store_tile(partial_ptr, rows * HEAD_DIM, real, average, HEAD_DIM, PADDED_DIM)
    tl.store(lse_ptr + rows, lse, mask=real)


@triton.jit
def reduce_kernel(
    out_ptr: tl.tensor,
    partial_ptr: tl.tensor,
    lse_ptr: tl.tensor,
    context_lens_ptr: tl.tensor,
    query_start_ptr: tl.tensor,
    split_size: tl.tensor,
    num_splits: tl.tensor,
    window: tl.tensor,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
    REDUCE: tl.constexpr,
) -> None:
    """Merge the splits of one sequence and query head: grid [B, Hq]. REDUCE is `reduce_splits` or another like it."""
    sequence, head = tl.program_id(0), tl.program_id(1)
    token = tl.load(query_start_ptr + sequence).to(tl.int64)
    if tl.load(query_start_ptr + sequence + 1) - token != 1:
        return
    context_len = tl.load(context_lens_ptr + sequence).to(tl.int32)
    num_written = tl.cdiv(tl.minimum(context_len, window), split_size)
    row = sequence.to(tl.int64) * num_splits * NUM_HEADS + head
    merged = REDUCE(
        partial_ptr + row * HEAD_DIM, lse_ptr + row, num_written, NUM_HEADS, HEAD_DIM, PADDED_DIM, PADDED_SPLITS
    )
    dims = tl.arange(0, PADDED_DIM)
    target = out_ptr + (token * NUM_HEADS + head) * HEAD_DIM + dims
    tl.store(target, merged.to(out_ptr.dtype.element_ty), mask=dims < HEAD_DIM)


def choose_split_size(num_programs: int, max_context: int, num_processors: int) -> int | None:
    """Positions in a split, or None where the batch alone keeps the GPU busy.

    Args:
        num_programs: what `paged_decode` would launch: sequences times K/V heads.
        max_context: the longest context there may be, in tokens; an upper bound will do.
        num_processors: multiprocessors of the GPU.
    """
    wanted = -(-PROGRAMS_PER_PROCESSOR * num_processors // max(num_programs, 1))
    num_splits = min(wanted, max_context // MIN_SPLIT)
    return -(-max_context // num_splits) if num_splits > 1 else None


def paged_decode_split(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
    *,
    split_size: int,
    scale: float | None = None,
    sliding_window: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Attention of the sequences that have exactly one new token, `split_size` positions to a program.

    The floor is that of `paged_decode`. On top of it each split writes and reads `Hq * (D + 1)` float32, which is
    `4 * Hq / (Hkv * split_size * itemsize)` of its K and V: under 2 % for 512 positions, bfloat16 and a GQA ratio of 4.
    Sums are taken in another order than in `paged_decode`, so the last bits depend on `split_size`.

    Args:
        split_size: positions of a split, rounded up to a whole number of tiles, and further where there would be more
            splits than one reduce program can hold (16,384 / D). See `choose_split_size`.

    The other arguments, the result and the errors are those of `paged_decode`.
    """
    where = (q, k_cache, v_cache, block_tables, context_lens, query_start_loc, block_size)
    return launch_paged_decode_split(attend_split, reduce_splits, *where, split_size, scale, sliding_window, out)


def launch_paged_decode_split(
    attend: Kernel,
    reduce: Kernel,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
    split_size: int,
    scale: float | None = None,
    sliding_window: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Check the arguments of `paged_decode_split` and launch both kernels.

    Args:
        attend: like `attend_split`.
        reduce: like `reduce_splits`.

    Raises: as `paged_decode_split`.
    """
    check(split_size >= 1, f"split_size is {split_size}; it must be at least 1")
    out, arguments = attention_arguments(
        q, k_cache, v_cache, block_tables, context_lens, query_start_loc, block_size, scale, sliding_window, out
    )
    batch, num_heads = context_lens.shape[0], q.shape[1]
    max_context = min(block_tables.shape[1] * block_size, arguments["window"])
    if not batch:
        return out
    most_splits = MAX_REDUCED // arguments["PADDED_DIM"]
    split_size = max(split_size, triton.cdiv(max_context, most_splits))
    split_size = triton.cdiv(split_size, arguments["TILE"]) * arguments["TILE"]
    num_splits = max(1, triton.cdiv(max_context, split_size))
    rows = row_tile(arguments["GQA_RATIO"], MAX_ROWS)
    partial = torch.empty(batch, num_splits, num_heads, q.shape[2], dtype=torch.float32, device=q.device)
    lse = torch.empty(batch, num_splits, num_heads, dtype=torch.float32, device=q.device)
    grid = (batch, k_cache.shape[1] * triton.cdiv(arguments["GQA_RATIO"], rows), num_splits)
    split_kernel[grid](
        partial, lse, split_size, num_splits, **arguments, ROWS=rows, ATTEND=attend, num_warps=4, num_stages=3
    )
    reduce_kernel[(batch, num_heads)](
        out,
        partial,
        lse,
        context_lens,
        query_start_loc,
        split_size,
        num_splits,
        arguments["window"],
        NUM_HEADS=num_heads,
        HEAD_DIM=arguments["HEAD_DIM"],
        PADDED_DIM=arguments["PADDED_DIM"],
        PADDED_SPLITS=triton.next_power_of_2(num_splits),
        REDUCE=reduce,
        num_warps=4,
    )
    return out
