"""Attention of one new token a sequence over its pages: the kernel of every decode step."""

from __future__ import annotations

from torch import Tensor

from tinyllm.kernels.launch import Kernel, attention_arguments, row_tile
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.tiles import group_heads, load_tile, normalized, store_tile

#: Most query heads of a group that one program takes together.
MAX_ROWS = 64


@triton.jit
def page_slots(table_ptr: tl.tensor, positions: tl.tensor, inside: tl.tensor, BLOCK_SIZE: tl.constexpr) -> tl.tensor:
    """[TILE] int64: the slots of `positions` of one sequence, whose block table begins at `table_ptr`.

    The page is looked up for each position, so a tile has nothing to do with a block: any block size and any order of
    blocks will do. Where a position is not `inside` the table must not be read, and any slot will do.
    """
    block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
    return block.to(tl.int64) * BLOCK_SIZE + positions % BLOCK_SIZE  # int64: slot * stride passes 2**31


@triton.jit
def softmax_step(
    scores: tl.tensor, v: tl.tensor, highest: tl.tensor, total: tl.tensor, acc: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Fold one tile into the running softmax of each row. Scores are in base 2, since `exp2` is one instruction.

    Args:
        scores: [ROWS, TILE], -inf where a row may not look, perhaps everywhere.
        v: [TILE, PADDED_DIM].
        highest: [ROWS], the highest score so far, which papers call m; -inf before the first.
        total: [ROWS], sum of 2 ** (score - highest) so far, which papers call l.
        acc: [ROWS, PADDED_DIM], the same sum with each term times its V.

    Returns:
        The new highest, total and acc.
    """
    new_highest = tl.maximum(highest, tl.max(scores, 1))
    shift = tl.where(new_highest == float("-inf"), 0.0, new_highest)  # a row that has seen nothing: no inf - inf
    weights = tl.exp2(scores - shift[:, None])
    correction = tl.exp2(highest - shift)
    total = total * correction + tl.sum(weights, 1)
    acc = tl.dot(weights.to(v.dtype), v, acc * correction[:, None], input_precision="ieee")
    return new_highest, total, acc


@triton.jit
def attend_pages(
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
    """Attention of each row of q [ROWS, PADDED_DIM] over positions `first` to `last - 1` of one sequence.

    Walks over the positions TILE at a time. Slot s of K/V head h begins `s * kv_stride_slot + h * kv_stride_head`
    numbers behind `k_ptr` and `v_ptr`. `scale` is above 0 and holds log2(e) besides 1 / sqrt(D): it makes scores of
    base 2.

    Returns:
        highest, total and acc of `softmax_step`; -inf, 0 and 0 where there is no position. The caller divides.
    """
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
        # "ieee": on float32 a dot would otherwise drop to TF32 on NVIDIA GPUs.
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return highest, total, acc


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
    ROWS: tl.constexpr,
    ATTEND: tl.constexpr,
) -> None:
    """One sequence and the query heads of one K/V head: grid [B, Hkv * tiles of the group].

    ATTEND is `attend_pages` or another like it.
    """
    sequence = tl.program_id(0)
    token = tl.load(query_start_ptr + sequence).to(tl.int64)
    if tl.load(query_start_ptr + sequence + 1) - token != 1:
        return
    kv_head, heads, real = group_heads(tl.program_id(1), GQA_RATIO, ROWS)
    q = load_tile(q_ptr + token * q_stride_token, heads * q_stride_head, real, HEAD_DIM, PADDED_DIM)
    context_len = tl.load(context_lens_ptr + sequence).to(tl.int32)
    _, total, acc = ATTEND(
        q,
        kv_head,
        tl.maximum(context_len - window, 0),
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
    out_row = out_ptr + token * NUM_HEADS * HEAD_DIM
    store_tile(out_row, heads * HEAD_DIM, real, normalized(acc, total), HEAD_DIM, PADDED_DIM)


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
    """Attention of the sequences that have exactly one new token.

    `reference.paged_attention_with_lse` says it in torch.

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
        scale: factor of the scores, above 0; 1 / sqrt(D) by default.
        sliding_window: a token sees itself and the `sliding_window - 1` before it; all before it by default.
        out: [T, Hq, D] contiguous, to write to; rows of sequences with more than one new token are left as they are.

    Returns:
        `out`, or a new tensor with 0 in the rows that are not this kernel's.

    Raises:
        ValueError: shapes, dtypes, strides or devices do not fit together.
        KernelsUnavailable: no kernel can run on this device.
    """
    where = (q, k_cache, v_cache, block_tables, context_lens, query_start_loc, block_size)
    return launch_paged_decode(attend_pages, *where, scale, sliding_window, out)


def launch_paged_decode(
    attend: Kernel,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
    scale: float | None = None,
    sliding_window: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Check the arguments of `paged_decode` and launch the kernel on `attend`, which is like `attend_pages`.

    Raises: as `paged_decode`.
    """
    out, arguments = attention_arguments(
        q, k_cache, v_cache, block_tables, context_lens, query_start_loc, block_size, scale, sliding_window, out
    )
    rows = row_tile(arguments["GQA_RATIO"], MAX_ROWS)
    grid = (context_lens.shape[0], k_cache.shape[1] * triton.cdiv(arguments["GQA_RATIO"], rows))
    if context_lens.shape[0]:
        paged_decode_kernel[grid](out, **arguments, ROWS=rows, ATTEND=attend, num_warps=4, num_stages=3)
    return out
