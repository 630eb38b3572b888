"""What the attention kernels share: move tiles between memory and registers, and find the heads of a program.

All of them work on a tile of query rows of one sequence that share a K/V head, and walk over the sequence's positions
TILE at a time (`paged_decode.attend_pages`).
"""

from __future__ import annotations

from typing import Any

from tinyllm.kernels.runtime import AVAILABLE, INTERPRETED, tl, triton

#: For load_tile: a kernel may read a global only if it is a constant.
IN_INTERPRETER: Any = tl.constexpr(INTERPRETED) if AVAILABLE else INTERPRETED


@triton.jit
def load_tile(
    ptr: tl.tensor,
    offsets: tl.tensor,
    inside: tl.tensor | None,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
) -> tl.tensor:
    """[rows, PADDED_DIM]: HEAD_DIM numbers from each of `offsets`, 0 in rows that are not `inside` and in the padding.

    Where `inside` is None all rows are, and without padding nothing is masked.
    In the dtype that `ptr` has, but for bfloat16 in the interpreter, whose `tl.dot` is wrong on it: float32 there.
    """
    dims = tl.arange(0, PADDED_DIM)
    where = ptr + offsets[:, None] + dims[None, :]
    if inside is not None:
        tile = tl.load(where, mask=inside[:, None] & (dims < HEAD_DIM)[None, :], other=0.0)
    elif HEAD_DIM < PADDED_DIM:
        tile = tl.load(where, mask=(dims < HEAD_DIM)[None, :], other=0.0)
    else:
        tile = tl.load(where)
    if IN_INTERPRETER and ptr.dtype.element_ty == tl.bfloat16:
        tile = tile.to(tl.float32)
    return tile


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
def normalized(acc: tl.tensor, total: tl.tensor) -> tl.tensor:
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
