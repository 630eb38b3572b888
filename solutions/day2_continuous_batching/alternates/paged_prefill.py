"""Other right ways to `paged_prefill`."""

from grader.mutants import alternate
from tinyllm.kernels.paged_decode import page_slots, softmax_step
from tinyllm.kernels.paged_prefill import launch_paged_prefill
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.tiles import load_tile


@triton.jit
def _one_masked_loop(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = context_len - query_len + rows // GQA_RATIO
    last = tl.max(own, 0) + 1
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(0, last, TILE):
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


@alternate
def OneMaskedLoop(*arguments, **options):
    """Masks every tile from position 0 on, and skips nothing."""
    return launch_paged_prefill(_one_masked_loop, *arguments, **options)


@triton.jit
def _highest_first(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = context_len - query_len + rows // GQA_RATIO
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for turn in tl.static_range(2):
        for start in range(0, context_len, TILE):
            positions = start + tl.arange(0, TILE)
            inside = positions < context_len
            offsets = page_slots(table_ptr, positions, inside, BLOCK_SIZE) * kv_stride_slot + kv_head * kv_stride_head
            k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
            distance = own[:, None] - positions[None, :]
            scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
            scores = tl.where((distance >= 0) & (distance < window), scores, float("-inf"))
            if turn == 0:
                highest = tl.maximum(highest, tl.max(scores, 1))
            else:
                v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
                weights = tl.exp2(scores - highest[:, None])
                total += tl.sum(weights, 1)
                acc += tl.dot(weights.to(v.dtype), v, input_precision="ieee")
    return total, acc


@alternate
def HighestFirst(*arguments, **options):
    """Walks twice: once for the highest score of each row, once for the sums."""
    return launch_paged_prefill(_highest_first, *arguments, **options)
