"""Multiply each pair of a token and an expert by that expert's matrix: the kernel of every sparse layer."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyllm.kernels.launch import DTYPES, Kernel, check
from tinyllm.kernels.runtime import check_device, tl, triton
from tinyllm.kernels.tiles import IN_INTERPRETER

#: Rows of a block with few pairs an expert, and with many. `tl.dot` takes 16 rows or more.
SMALL_BLOCK, LARGE_BLOCK = 16, 64


@triton.jit
def grouped_gemm_tile(
    a_ptr: tl.tensor,
    w_ptr: tl.tensor,
    out_ptr: tl.tensor,
    topk_weights_ptr: tl.tensor,
    pairs: tl.tensor,
    num_pairs: tl.tensor,
    columns: tl.tensor,
    a_stride: tl.tensor,
    w_stride: tl.tensor,
    N: tl.constexpr,
    K: tl.constexpr,
    PAIRS_PER_ROW: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Multiply one block of pairs by BLOCK_N rows of one expert's matrix, and store the products in the pairs' rows.

    out[pair, column] = sum over k of a[pair // PAIRS_PER_ROW, k] * w[column, k], times the pair's weight if WEIGHTED.
    Sums are in float32. The numbers of a row lie side by side; row r of a begins `r * a_stride` numbers behind `a_ptr`,
    row c of the expert's w `c * w_stride` behind `w_ptr`, and row p of out `p * N` behind `out_ptr`.

    Args:
        a_ptr, w_ptr, out_ptr: the first numbers of a, of this expert's w and of out.
        topk_weights_ptr: a weight for each pair; there is nothing to be read unless WEIGHTED.
        pairs: [BLOCK_M] int64, the pairs of this block; `num_pairs` is padding: nothing is read or stored for it.
        num_pairs: T * top_k.
        columns: [BLOCK_N] int32, which columns of out, that is rows of w; those from N on do not exist.
    """
    real = pairs < num_pairs
    wanted = columns < N
    a_rows = a_ptr + (pairs // PAIRS_PER_ROW) * a_stride
    w_rows = w_ptr + columns.to(tl.int64) * w_stride
    acc = tl.zeros([pairs.shape[0], columns.shape[0]], tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a = load_part(a_rows, k, real, K)
        w = load_part(w_rows, k, wanted, K)
        acc = tl.dot(a, tl.trans(w), acc, input_precision="ieee")
    if WEIGHTED:
        acc *= tl.load(topk_weights_ptr + pairs, mask=real, other=0.0).to(tl.float32)[:, None]
    out = out_ptr + pairs[:, None] * N + columns[None, :]
    tl.store(out, acc.to(out_ptr.dtype.element_ty), mask=real[:, None] & wanted[None, :])


@triton.jit
def load_part(row_ptrs: tl.tensor, k: tl.tensor, inside: tl.tensor, K: tl.constexpr) -> tl.tensor:
    """[rows, BLOCK_K]: numbers k of each row; 0 in rows that are not `inside` and from K on.

    In the rows' dtype, but for bfloat16 in the interpreter, whose `tl.dot` is wrong on it: float32 there.
    """
    part = tl.load(row_ptrs[:, None] + k[None, :], mask=inside[:, None] & (k < K)[None, :], other=0.0)
    if IN_INTERPRETER and part.dtype == tl.bfloat16:
        part = part.to(tl.float32)
    return part


@triton.jit
def grouped_gemm_kernel(
    a_ptr: tl.tensor,
    w_ptr: tl.tensor,
    out_ptr: tl.tensor,
    topk_weights_ptr: tl.tensor,
    sorted_token_ids_ptr: tl.tensor,
    expert_ids_ptr: tl.tensor,
    num_tokens_post_padded_ptr: tl.tensor,
    num_pairs: tl.tensor,
    a_stride: tl.tensor,
    w_stride_expert: tl.tensor,
    w_stride: tl.tensor,
    N: tl.constexpr,
    K: tl.constexpr,
    PAIRS_PER_ROW: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """One block of pairs and BLOCK_N columns: grid [blocks, cdiv(N, BLOCK_N)]. TILE is like `grouped_gemm_tile`."""
    block = tl.program_id(0)
    if block * BLOCK_M >= tl.load(num_tokens_post_padded_ptr):
        return
    expert = tl.load(expert_ids_ptr + block).to(tl.int64)  # int64: expert * stride passes 2**31 in large models
    if expert < 0:
        return
    pairs = tl.load(sorted_token_ids_ptr + block * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    TILE(
        a_ptr,
        w_ptr + expert * w_stride_expert,
        out_ptr,
        topk_weights_ptr,
        pairs,
        num_pairs,
        columns,
        a_stride,
        w_stride,
        N,
        K,
        PAIRS_PER_ROW,
        WEIGHTED,
        BLOCK_K,
    )


def grouped_gemm(
    a: Tensor,
    w: Tensor,
    sorted_token_ids: Tensor,
    expert_ids: Tensor,
    num_tokens_post_padded: Tensor,
    num_pairs: int,
    topk_weights: Tensor | None = None,
    *,
    out: Tensor | None = None,
    tile: Kernel = grouped_gemm_tile,
) -> Tensor:
    """Multiply every pair's row by its expert's matrix; `reference.grouped_gemm` says the same in torch.

    The floor with many pairs is the arithmetic, `2 * num_pairs * N * K` operations; with few it is reading the matrices
    of the experts that have a pair, `touched * N * K` numbers.

    Args:
        a: [rows, K] float16, bfloat16 or float32, the numbers of a row side by side. One row a token, which its pairs
            share, or one a pair.
        w: [E, N, K] in a's dtype, the numbers of a row side by side.
        sorted_token_ids, expert_ids, num_tokens_post_padded: of `moe_align_block_size`; the block size follows.
        num_pairs: T * top_k, a multiple of the rows.
        topk_weights: num_pairs numbers, to multiply each pair's product by; None does not.
        out: [num_pairs, N] in a's dtype, contiguous, to write to; rows of pairs that no block has are left as they are.
        tile: the kernel's inner part, like `grouped_gemm_tile`.

    Returns:
        `out`, or a new tensor with 0 in the rows of pairs that no block has.

    Raises:
        ValueError: shapes, dtypes, strides or devices do not fit together.
        KernelsUnavailable: no kernel can run on this device.
    """
    check(
        a.ndim == 2 and w.ndim == 3 and a.shape[1] == w.shape[2],
        f"a is {list(a.shape)} and w {list(w.shape)}; they must be [rows, K] and [E, N, K]",
    )
    check(
        a.dtype in DTYPES and a.dtype == w.dtype,
        f"a is {a.dtype} and w {w.dtype}; both must be one of float16, bfloat16, float32",
    )
    check(a.stride(1) == 1 and w.stride(2) == 1, "the last dimension of a and of w must be contiguous")
    check(
        (len(a) > 0 and num_pairs % len(a) == 0) or num_pairs == 0,
        f"{num_pairs} pairs do not belong to {len(a)} rows of a evenly",
    )
    check(
        len(expert_ids) == 0 or len(sorted_token_ids) % len(expert_ids) == 0,
        f"{len(sorted_token_ids)} sorted_token_ids are no whole blocks for {len(expert_ids)} expert_ids",
    )
    check(
        topk_weights is None or (topk_weights.numel() == num_pairs and topk_weights.is_contiguous()),
        f"topk_weights must be {num_pairs} numbers, contiguous",
    )
    num_columns, depth = w.shape[1:]
    check(
        out is None or (out.shape == (num_pairs, num_columns) and out.dtype == a.dtype and out.is_contiguous()),
        f"out must be [{num_pairs}, {num_columns}] in {a.dtype}, contiguous",
    )
    others = (w, sorted_token_ids, expert_ids, num_tokens_post_padded, topk_weights, out)
    check(
        all(t.device == a.device for t in others if t is not None),
        "a, w, topk_weights, out and the blocks are on different devices",
    )
    check_device(a.device)
    if out is None:
        out = torch.zeros(num_pairs, num_columns, dtype=a.dtype, device=a.device)
    if num_pairs == 0 or len(expert_ids) == 0:
        return out
    block_m = len(sorted_token_ids) // len(expert_ids)
    block_n, block_k, num_warps, num_stages = tile_shape(block_m, num_columns, depth, a.dtype)
    grouped_gemm_kernel[(len(expert_ids), triton.cdiv(num_columns, block_n))](
        a,
        w,
        out,
        a.new_empty(0) if topk_weights is None else topk_weights,  # nothing to be read
        sorted_token_ids,
        expert_ids,
        num_tokens_post_padded,
        num_pairs,
        a.stride(0),
        *w.stride()[:2],
        N=num_columns,
        K=depth,
        PAIRS_PER_ROW=num_pairs // len(a),
        WEIGHTED=topk_weights is not None,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        TILE=tile,
        num_warps=num_warps,
        num_stages=num_stages,
    )
    return out


def tile_shape(block_m: int, num_columns: int, depth: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """BLOCK_N, BLOCK_K, warps and stages: wide where there are many rows to use each number of w for."""
    wide = 128 if block_m > SMALL_BLOCK else 64
    block_n = max(16, min(wide, triton.next_power_of_2(num_columns)))
    block_k = max(16, min(128 // dtype.itemsize, triton.next_power_of_2(depth)))
    return block_n, block_k, 8 if block_m >= LARGE_BLOCK else 4, 4 if dtype.itemsize == 2 else 2
