"""What the launchers share: checked arguments, and the sizes of tiles."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tinyllm.kernels.runtime import check_device, triton

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MAX_HEAD_DIM = 256
#: A tile of K has at most this many bytes, so that several fit into the shared memory of one multiprocessor.
TILE_BYTES = 16 * 1024
NO_WINDOW = 2**31 - 1

#: What `@triton.jit` makes of a function: compiled, interpreted, or without Triton (three types without a common base).
Kernel = Any


def check(ok: bool, message: str) -> None:
    """Raise ValueError(message) unless `ok`."""
    if not ok:
        raise ValueError(message)


def last_dim_contiguous(x: Tensor) -> Tensor:
    """The tensor itself where the numbers of a head lie side by side, otherwise a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def check_pool(k_cache: Tensor, v_cache: Tensor) -> None:
    """Check that K and V have one layout, in which the numbers of a head lie side by side.

    Raises:
        ValueError: they differ, or do not.
    """
    check(
        k_cache.shape == v_cache.shape and k_cache.stride() == v_cache.stride() and k_cache.dtype == v_cache.dtype,
        "k_cache and v_cache must have the same shape, strides and dtype",
    )
    check(k_cache.stride(-1) == 1, "the pool's last dimension must be contiguous")
    check(k_cache.device == v_cache.device, "k_cache and v_cache are on different devices")


def attention_arguments(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
    scale: float | None,
    sliding_window: int | None,
    out: Tensor | None,
) -> tuple[Tensor, dict[str, Any]]:
    """Check what all attention kernels take, and name it as they do.

    Values inside tensors are not looked at: that would wait for the GPU. Block tables must name blocks of the pool
    for every position below the context length.

    Returns:
        The tensor to write to, and the kernels' common arguments.

    Raises:
        ValueError: shapes, dtypes, strides or devices do not fit together; the message says which and how.
        KernelsUnavailable: no kernel can run on this device.
    """
    check(q.ndim == 3, f"q is {list(q.shape)}; it must be [T, Hq, D]")
    num_heads, head_dim = q.shape[1:]
    check(
        k_cache.ndim == 3 and k_cache.shape[2] == head_dim and num_heads % k_cache.shape[1] == 0,
        f"q is {list(q.shape)} and the pool {list(k_cache.shape)}; they must be [T, Hq, D] and [num_slots, Hkv, D] "
        "with Hq a multiple of Hkv",
    )
    check_pool(k_cache, v_cache)
    check(1 <= head_dim <= MAX_HEAD_DIM, f"head_dim is {head_dim}; these kernels take 1 to {MAX_HEAD_DIM}")
    check(q.dtype in DTYPES, f"q is {q.dtype}; it must be float16, bfloat16 or float32")
    check(q.dtype == k_cache.dtype, f"q is {q.dtype} but the pool {k_cache.dtype}")
    check(block_size >= 1, f"block_size is {block_size}; it must be at least 1")
    check(sliding_window is None or sliding_window >= 1, f"sliding_window is {sliding_window}; it must be at least 1")
    batch = context_lens.shape[0]
    check(
        block_tables.ndim == 2 and block_tables.shape[0] == batch and query_start_loc.shape == (batch + 1,),
        f"block_tables is {list(block_tables.shape)}, context_lens {list(context_lens.shape)} and query_start_loc "
        f"{list(query_start_loc.shape)}; they must be [B, max_blocks], [B] and [B + 1]",
    )
    for name, table in (
        ("block_tables", block_tables),
        ("context_lens", context_lens),
        ("query_start_loc", query_start_loc),
    ):
        check(table.dtype in (torch.int32, torch.int64), f"{name} is {table.dtype}; it must be int32 or int64")
        check(table.stride(-1) == 1 or table.shape[-1] == 1, f"{name} must be contiguous in its last dimension")
        check(table.device == q.device, f"q is on {q.device} but {name} on {table.device}")
    check(k_cache.device == q.device, f"q is on {q.device} but the pool on {k_cache.device}")
    check(
        out is None
        or (out.shape == q.shape and out.dtype == q.dtype and out.is_contiguous() and out.device == q.device),
        "out must be contiguous, with the shape, dtype and device of q",
    )
    check_device(q.device)
    if out is None:
        out = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
    q = last_dim_contiguous(q)
    padded_dim = max(16, triton.next_power_of_2(head_dim))  # tl.dot takes no fewer than 16
    return out, {
        "q_ptr": q,
        "k_ptr": k_cache,
        "v_ptr": v_cache,
        "tables_ptr": block_tables,
        "context_lens_ptr": context_lens,
        "query_start_ptr": query_start_loc,
        "scale": (head_dim**-0.5 if scale is None else scale) * math.log2(math.e),
        "window": NO_WINDOW if sliding_window is None else sliding_window,
        "q_stride_token": q.stride(0),
        "q_stride_head": q.stride(1),
        "kv_stride_slot": k_cache.stride(0),
        "kv_stride_head": k_cache.stride(1),
        "table_stride": block_tables.stride(0),
        "NUM_HEADS": num_heads,
        "GQA_RATIO": num_heads // k_cache.shape[1],
        "HEAD_DIM": head_dim,
        "PADDED_DIM": padded_dim,
        "BLOCK_SIZE": block_size,
        "TILE": tile_size(padded_dim, q.dtype),
    }


def tile_size(padded_dim: int, dtype: torch.dtype) -> int:
    """Positions that a kernel loads at once: a power of two from 16, which tl.dot asks for, to 128."""
    return max(16, min(128, TILE_BYTES // (padded_dim * dtype.itemsize)))


def row_tile(num_rows: int, at_most: int) -> int:
    """Query rows of one program: a power of two from 16, which tl.dot asks for, to `at_most`."""
    return max(16, min(at_most, triton.next_power_of_2(num_rows)))
