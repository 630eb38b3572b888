"""Other right ways to `paged_decode`."""

from grader.mutants import alternate
from tinyllm.kernels.paged_decode import launch_paged_decode, page_slots
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.tiles import load_tile


@triton.jit
def softmax_step(scores, v, highest, total, acc):
    """With sums in place of `tl.dot`, and weights of unseen scores set to 0 where they are made."""
    new_highest = tl.maximum(highest, tl.max(scores, 1))
    weights = tl.where(scores == float("-inf"), 0.0, tl.exp2(scores - new_highest[:, None]))
    correction = tl.where(highest == float("-inf"), 0.0, tl.exp2(highest - new_highest))
    acc = acc * correction[:, None] + tl.sum(weights[:, :, None] * v[None, :, :], 1)
    return new_highest, total * correction + tl.sum(weights, 1), acc


@triton.jit
def _backwards_without_dot(
    q, kv_head, first, last, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head, ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for step in range(0, tl.cdiv(last - first, 16)):
        positions = last - 1 - step * 16 - tl.arange(0, 16)
        inside = positions >= first
        slots = page_slots(table_ptr, tl.maximum(positions, 0), inside, BLOCK_SIZE)
        offsets = slots * kv_stride_slot + kv_head * kv_stride_head
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.sum(q.to(tl.float32)[:, None, :] * k[None, :, :], 2) * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return highest, total, acc


@alternate
def BackwardsWithoutDot(*arguments, **options):
    """From the newest position to the oldest, 16 at a time, with sums in place of `tl.dot`."""
    return launch_paged_decode(_backwards_without_dot, *arguments, **options)
