"""Other right ways to `paged_decode_split`."""

from grader.mutants import alternate
from tinyllm.kernels.paged_decode import attend_pages
from tinyllm.kernels.paged_decode_split import attend_split, launch_paged_decode_split
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.tiles import load_tile, normalized


@triton.jit
def _merge_one_by_one(
    partial_ptr, lse_ptr, num_written, stride_split, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
):  # fmt: skip
    dims = tl.arange(0, PADDED_DIM)
    highest = float("-inf")
    total = 0.0
    merged = tl.zeros([PADDED_DIM], tl.float32)
    for split in range(0, num_written):
        lse = tl.load(lse_ptr + split * stride_split)
        out = tl.load(partial_ptr + split * stride_split * HEAD_DIM + dims, mask=dims < HEAD_DIM, other=0.0)
        new_highest = tl.maximum(highest, lse)
        correction, share = tl.exp2(highest - new_highest), tl.exp2(lse - new_highest)
        merged, total = merged * correction + out * share, total * correction + share
        highest = new_highest
    return merged / tl.where(total == 0.0, 1.0, total)


@alternate
def MergesOneByOne(*arguments, **options):
    """A running merge: one split after the other, as online softmax does it."""
    return launch_paged_decode_split(attend_split, _merge_one_by_one, *arguments, **options)


@triton.jit
def _natural_lse(
    q, kv_head, split, split_size, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    start = first + split * split_size
    stop = tl.minimum(start + split_size, last)
    highest, total, acc = attend_pages(
        q, kv_head, start, stop, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS, HEAD_DIM,
        PADDED_DIM, BLOCK_SIZE, TILE,
    )  # fmt: skip
    return normalized(acc, total), highest / 1.4426950408889634 + tl.log(total)


@triton.jit
def _natural_shares(
    partial_ptr, lse_ptr, num_written, stride_split, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
):  # fmt: skip
    splits = tl.arange(0, PADDED_SPLITS)
    written = splits < num_written
    lse = tl.load(lse_ptr + splits * stride_split, mask=written, other=float("-inf"))
    highest = tl.max(lse, 0)
    shares = tl.exp(lse - tl.where(highest == float("-inf"), 0.0, highest))
    shares = shares / tl.where(num_written == 0, 1.0, tl.sum(shares, 0))
    partial = load_tile(partial_ptr, splits * stride_split * HEAD_DIM, written, HEAD_DIM, PADDED_DIM)
    return tl.sum(partial * shares[:, None], 0)


@alternate
def NaturalLogarithms(*arguments, **options):
    """Both kernels agree on log-sum-exps of base e; shares are divided before they are used."""
    return launch_paged_decode_split(_natural_lse, _natural_shares, *arguments, **options)
