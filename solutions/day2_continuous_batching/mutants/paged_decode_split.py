"""Mistakes that people make in `paged_decode_split`."""

from grader.mutants import mutant, unknown_bug, variant
from tinyllm.kernels.paged_decode import attend_pages
from tinyllm.kernels.paged_decode_split import attend_split, launch_paged_decode_split, reduce_splits
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.tiles import load_tile, normalised


@triton.jit
def _weighs_splits_equally(
    partial_ptr, lse_ptr, num_written, stride_split, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
):  # fmt: skip
    splits = tl.arange(0, PADDED_SPLITS)
    written = splits < num_written
    partial = load_tile(partial_ptr, splits * stride_split * HEAD_DIM, written, HEAD_DIM, PADDED_DIM)
    return tl.sum(partial, 0) / tl.maximum(num_written, 1)


@mutant
def WeighsSplitsEqually(*arguments, **options):
    """You take the plain mean of the splits' outputs. A split whose scores are higher has more of the softmax:
    its share is 2 ** lse of the sum over all splits."""
    return launch_paged_decode_split(attend_split, _weighs_splits_equally, *arguments, **options)


@triton.jit
def _averages_the_splits(
    partial_ptr, lse_ptr, num_written, stride_split, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
):  # fmt: skip
    dims = tl.arange(0, PADDED_DIM)
    merged = tl.zeros([PADDED_DIM], tl.float32)
    for split in range(0, num_written):
        merged += tl.load(partial_ptr + split * stride_split * HEAD_DIM + dims, mask=dims < HEAD_DIM, other=0.0)
    return merged / tl.maximum(num_written, 1)


@variant(WeighsSplitsEqually)
def AveragesTheSplits(*arguments, **options):
    """The same, split by split."""
    return launch_paged_decode_split(attend_split, _averages_the_splits, *arguments, **options)


@triton.jit
def _reads_unwritten_splits(
    partial_ptr, lse_ptr, num_written, stride_split, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
):  # fmt: skip
    splits = tl.arange(0, PADDED_SPLITS)
    lse = tl.load(lse_ptr + splits * stride_split)
    shares = tl.exp2(lse - tl.max(lse, 0))
    everything = splits >= 0
    partial = load_tile(partial_ptr, splits * stride_split * HEAD_DIM, everything, HEAD_DIM, PADDED_DIM)
    return tl.sum(partial * shares[:, None], 0) / tl.sum(shares, 0)


@mutant
def ReadsUnwrittenSplits(*arguments, **options):
    """You merge all splits that there is room for. A sequence with a shorter context has written fewer, and
    behind these is whatever was in memory: mask with `splits < num_written`."""
    return launch_paged_decode_split(attend_split, _reads_unwritten_splits, *arguments, **options)


@triton.jit
def _loops_over_all_splits(
    partial_ptr, lse_ptr, num_written, stride_split, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
):  # fmt: skip
    dims = tl.arange(0, PADDED_DIM)
    highest = float("-inf")
    for split in range(0, PADDED_SPLITS):
        highest = tl.maximum(highest, tl.load(lse_ptr + split * stride_split))
    total = 0.0
    merged = tl.zeros([PADDED_DIM], tl.float32)
    for split in range(0, PADDED_SPLITS):
        share = tl.exp2(tl.load(lse_ptr + split * stride_split) - highest)
        out = tl.load(partial_ptr + split * stride_split * HEAD_DIM + dims, mask=dims < HEAD_DIM, other=0.0)
        total, merged = total + share, merged + share * out
    return merged / total


@variant(ReadsUnwrittenSplits)
def LoopsOverAllSplits(*arguments, **options):
    """The same, split by split."""
    return launch_paged_decode_split(attend_split, _loops_over_all_splits, *arguments, **options)


@triton.jit
def _no_highest_lse(
    partial_ptr, lse_ptr, num_written, stride_split, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
):  # fmt: skip
    splits = tl.arange(0, PADDED_SPLITS)
    written = splits < num_written
    lse = tl.load(lse_ptr + splits * stride_split, mask=written, other=float("-inf"))
    shares = tl.exp2(lse)
    partial = load_tile(partial_ptr, splits * stride_split * HEAD_DIM, written, HEAD_DIM, PADDED_DIM)
    total = tl.sum(shares, 0)
    return tl.sum(partial * shares[:, None], 0) / tl.where(total == 0.0, 1.0, total)


@mutant
def NoHighestLse(*arguments, **options):
    """You raise 2 to the log-sum-exps as they are. Beyond 128 that is infinite, and infinity by infinity is NaN:
    take the highest out first."""
    return launch_paged_decode_split(attend_split, _no_highest_lse, *arguments, **options)


@triton.jit
def _plain_shares(
    partial_ptr, lse_ptr, num_written, stride_split, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
):  # fmt: skip
    dims = tl.arange(0, PADDED_DIM)
    total = 0.0
    merged = tl.zeros([PADDED_DIM], tl.float32)
    for split in range(0, num_written):
        share = tl.exp2(tl.load(lse_ptr + split * stride_split))
        out = tl.load(partial_ptr + split * stride_split * HEAD_DIM + dims, mask=dims < HEAD_DIM, other=0.0)
        total, merged = total + share, merged + share * out
    return merged / tl.where(total == 0.0, 1.0, total)


@variant(NoHighestLse)
def PlainShares(*arguments, **options):
    """The same, split by split."""
    return launch_paged_decode_split(attend_split, _plain_shares, *arguments, **options)


@triton.jit
def _forgets_to_divide(
    partial_ptr, lse_ptr, num_written, stride_split, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
):  # fmt: skip
    splits = tl.arange(0, PADDED_SPLITS)
    written = splits < num_written
    lse = tl.load(lse_ptr + splits * stride_split, mask=written, other=float("-inf"))
    highest = tl.max(lse, 0)
    shares = tl.exp2(lse - tl.where(highest == float("-inf"), 0.0, highest))
    partial = load_tile(partial_ptr, splits * stride_split * HEAD_DIM, written, HEAD_DIM, PADDED_DIM)
    return tl.sum(partial * shares[:, None], 0)


@mutant
def ForgetsToDivide(*arguments, **options):
    """You add up the outputs by their shares, and the shares do not add up to 1: divide by their sum."""
    return launch_paged_decode_split(attend_split, _forgets_to_divide, *arguments, **options)


@triton.jit
def _sums_the_shares(
    partial_ptr, lse_ptr, num_written, stride_split, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
):  # fmt: skip
    dims = tl.arange(0, PADDED_DIM)
    highest = float("-inf")
    for split in range(0, num_written):
        highest = tl.maximum(highest, tl.load(lse_ptr + split * stride_split))
    merged = tl.zeros([PADDED_DIM], tl.float32)
    for split in range(0, num_written):
        share = tl.exp2(tl.load(lse_ptr + split * stride_split) - highest)
        merged += share * tl.load(partial_ptr + split * stride_split * HEAD_DIM + dims, mask=dims < HEAD_DIM, other=0.0)
    return merged


@variant(ForgetsToDivide)
def SumsTheShares(*arguments, **options):
    """The same, split by split."""
    return launch_paged_decode_split(attend_split, _sums_the_shares, *arguments, **options)


@triton.jit
def _reads_past_the_context(
    q, kv_head, split, split_size, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    start = first + split * split_size
    stop = start + split_size
    highest, total, acc = attend_pages(
        q, kv_head, start, stop, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS, HEAD_DIM,
        PADDED_DIM, BLOCK_SIZE, TILE,
    )  # fmt: skip
    return normalised(acc, total), highest + tl.log2(total)


@mutant
def ReadsPastTheContext(*arguments, **options):
    """Your last split is as long as the others. It ends where the context ends, at `last`: what the block table
    says behind that means nothing."""
    return launch_paged_decode_split(_reads_past_the_context, reduce_splits, *arguments, **options)


@triton.jit
def _rounds_the_context_up(
    q, kv_head, split, split_size, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    start = first + split * split_size
    stop = first + (split + 1) * split_size
    highest, total, acc = attend_pages(
        q, kv_head, start, stop, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS, HEAD_DIM,
        PADDED_DIM, BLOCK_SIZE, TILE,
    )  # fmt: skip
    return normalised(acc, total), tl.log2(total) + highest


@variant(ReadsPastTheContext)
def RoundsTheContextUp(*arguments, **options):
    """The same, counted from the next split."""
    return launch_paged_decode_split(_rounds_the_context_up, reduce_splits, *arguments, **options)


@triton.jit
def _splits_from_zero(
    q, kv_head, split, split_size, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    start = split * split_size
    stop = tl.minimum(start + split_size, last)
    highest, total, acc = attend_pages(
        q, kv_head, start, stop, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS, HEAD_DIM,
        PADDED_DIM, BLOCK_SIZE, TILE,
    )  # fmt: skip
    return normalised(acc, total), highest + tl.log2(total)


@mutant
def SplitsFromZero(*arguments, **options):
    """Your splits begin at position 0. With a sliding window the positions to look at begin at `first`."""
    return launch_paged_decode_split(_splits_from_zero, reduce_splits, *arguments, **options)


@triton.jit
def _skips_nothing(
    q, kv_head, split, split_size, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    start = split_size * split
    stop = tl.minimum((split + 1) * split_size, last)
    highest, total, acc = attend_pages(
        q, kv_head, start, stop, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS, HEAD_DIM,
        PADDED_DIM, BLOCK_SIZE, TILE,
    )  # fmt: skip
    return normalised(acc, total), tl.log2(total) + highest


@variant(SplitsFromZero)
def SkipsNothing(*arguments, **options):
    """The same, counted from the next split."""
    return launch_paged_decode_split(_skips_nothing, reduce_splits, *arguments, **options)


@triton.jit
def _lse_without_highest(
    q, kv_head, split, split_size, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    start = first + split * split_size
    stop = tl.minimum(start + split_size, last)
    highest, total, acc = attend_pages(
        q, kv_head, start, stop, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS, HEAD_DIM,
        PADDED_DIM, BLOCK_SIZE, TILE,
    )  # fmt: skip
    return normalised(acc, total), tl.log2(total)


@mutant
def LseWithoutHighest(*arguments, **options):
    """Your log-sum-exp is that of the scores without their highest, which each split has taken out for itself:
    add `highest` to log2(total), or splits cannot be compared."""
    return launch_paged_decode_split(_lse_without_highest, reduce_splits, *arguments, **options)


@triton.jit
def _log_of_the_total(
    q, kv_head, split, split_size, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    start = first + split * split_size
    stop = tl.minimum(start + split_size, last)
    highest, total, acc = attend_pages(
        q, kv_head, start, stop, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS, HEAD_DIM,
        PADDED_DIM, BLOCK_SIZE, TILE,
    )  # fmt: skip
    return normalised(acc, total), tl.log(total) * 1.4426950408889634


@variant(LseWithoutHighest)
def LogOfTheTotal(*arguments, **options):
    """The same, by way of the natural logarithm."""
    return launch_paged_decode_split(_log_of_the_total, reduce_splits, *arguments, **options)


@triton.jit
def _two_splits_at_most(
    partial_ptr, lse_ptr, num_written, stride_split, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
):  # fmt: skip
    splits = tl.arange(0, PADDED_SPLITS)
    written = splits < tl.minimum(num_written, 2)
    lse = tl.load(lse_ptr + splits * stride_split, mask=written, other=float("-inf"))
    highest = tl.max(lse, 0)
    shares = tl.exp2(lse - tl.where(highest == float("-inf"), 0.0, highest))
    partial = load_tile(partial_ptr, splits * stride_split * HEAD_DIM, written, HEAD_DIM, PADDED_DIM)
    total = tl.sum(shares, 0)
    return tl.sum(partial * shares[:, None], 0) / tl.where(total == 0.0, 1.0, total)


@unknown_bug
def TwoSplitsAtMost(*arguments, **options):
    """Merges the first two splits only."""
    return launch_paged_decode_split(attend_split, _two_splits_at_most, *arguments, **options)
