"""Mistakes that people make in `paged_prefill`."""

from grader.mutants import mutant, unknown_bug, variant
from tinyllm.kernels.paged_decode import page_slots, softmax_step
from tinyllm.kernels.paged_prefill import launch_paged_prefill
from tinyllm.kernels.runtime import tl, triton
from tinyllm.kernels.tiles import load_tile


@triton.jit
def _counts_from_the_chunk(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = rows // GQA_RATIO
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


@mutant
def CountsFromTheChunk(*arguments, **options):
    """You count a token's position from the beginning of its chunk. The chunk is the end of its sequence: its
    first token has position `context_len - query_len`."""
    return launch_paged_prefill(_counts_from_the_chunk, *arguments, **options)


@triton.jit
def _forgets_what_came_before(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = rows // GQA_RATIO
    last = context_len
    k_head, v_head = k_ptr + kv_head * kv_stride_head, v_ptr + kv_head * kv_stride_head
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(0, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = (block * BLOCK_SIZE + positions % BLOCK_SIZE) * kv_stride_slot
        k = load_tile(k_head, slots, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_head, slots, inside, HEAD_DIM, PADDED_DIM)
        visible = inside[None, :] & (positions[None, :] <= own[:, None]) & (positions[None, :] > own[:, None] - window)
        scores = tl.where(visible, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@variant(CountsFromTheChunk)
def ForgetsWhatCameBefore(*arguments, **options):
    """The same, with the whole context walked over."""
    return launch_paged_prefill(_forgets_what_came_before, *arguments, **options)


@triton.jit
def _looks_ahead(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = context_len - query_len + rows // GQA_RATIO
    last = context_len
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
        scores = tl.where(inside[None, :] & (distance < window), scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@mutant
def LooksAhead(*arguments, **options):
    """Your tokens see the whole context. A token may only see its own position and those before it."""
    return launch_paged_prefill(_looks_ahead, *arguments, **options)


@triton.jit
def _hides_nothing(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = context_len - query_len + rows // GQA_RATIO
    last = context_len
    k_head, v_head = k_ptr + kv_head * kv_stride_head, v_ptr + kv_head * kv_stride_head
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(0, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = (block * BLOCK_SIZE + positions % BLOCK_SIZE) * kv_stride_slot
        k = load_tile(k_head, slots, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_head, slots, inside, HEAD_DIM, PADDED_DIM)
        visible = inside[None, :] & (positions[None, :] > own[:, None] - window)
        scores = tl.where(visible, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@variant(LooksAhead)
def HidesNothing(*arguments, **options):
    """The same: without the mask of the diagonal."""
    return launch_paged_prefill(_hides_nothing, *arguments, **options)


@triton.jit
def _takes_rows_for_tokens(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = context_len - query_len + rows
    last = context_len
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


@mutant
def TakesRowsForTokens(*arguments, **options):
    """You take a row for a token. GQA_RATIO rows, one for each query head of the group, belong to one token: row
    r to token `r // GQA_RATIO`."""
    return launch_paged_prefill(_takes_rows_for_tokens, *arguments, **options)


@triton.jit
def _one_position_a_row(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = context_len - (query_len - rows)
    last = context_len
    k_head, v_head = k_ptr + kv_head * kv_stride_head, v_ptr + kv_head * kv_stride_head
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(0, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = (block * BLOCK_SIZE + positions % BLOCK_SIZE) * kv_stride_slot
        k = load_tile(k_head, slots, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_head, slots, inside, HEAD_DIM, PADDED_DIM)
        visible = inside[None, :] & (positions[None, :] <= own[:, None]) & (positions[None, :] > own[:, None] - window)
        scores = tl.where(visible, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@variant(TakesRowsForTokens)
def OnePositionARow(*arguments, **options):
    """The same, written from the end."""
    return launch_paged_prefill(_one_position_a_row, *arguments, **options)


@triton.jit
def _does_not_see_itself(
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
        scores = tl.where((distance > 0) & (distance < window), scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@mutant
def DoesNotSeeItself(*arguments, **options):
    """A token does not see itself. Its own K and V are in the cache by now, and it looks at them too: a distance
    of 0 is visible."""
    return launch_paged_prefill(_does_not_see_itself, *arguments, **options)


@triton.jit
def _only_what_came_before(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = context_len - query_len + rows // GQA_RATIO
    last = context_len
    k_head, v_head = k_ptr + kv_head * kv_stride_head, v_ptr + kv_head * kv_stride_head
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(0, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = (block * BLOCK_SIZE + positions % BLOCK_SIZE) * kv_stride_slot
        k = load_tile(k_head, slots, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_head, slots, inside, HEAD_DIM, PADDED_DIM)
        visible = inside[None, :] & (positions[None, :] < own[:, None]) & (positions[None, :] > own[:, None] - window)
        scores = tl.where(visible, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@variant(DoesNotSeeItself)
def OnlyWhatCameBefore(*arguments, **options):
    """The same, in positions."""
    return launch_paged_prefill(_only_what_came_before, *arguments, **options)


@triton.jit
def _ignores_the_window(
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
        scores = tl.where(distance >= 0, scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@mutant
def IgnoresTheWindow(*arguments, **options):
    """Your tokens see everything before them, whatever `window` says. Positions that are `window` or more away
    are hidden."""
    return launch_paged_prefill(_ignores_the_window, *arguments, **options)


@triton.jit
def _sees_all_before(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = context_len - query_len + rows // GQA_RATIO
    last = context_len
    k_head, v_head = k_ptr + kv_head * kv_stride_head, v_ptr + kv_head * kv_stride_head
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(0, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = (block * BLOCK_SIZE + positions % BLOCK_SIZE) * kv_stride_slot
        k = load_tile(k_head, slots, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_head, slots, inside, HEAD_DIM, PADDED_DIM)
        visible = inside[None, :] & (positions[None, :] <= own[:, None])
        scores = tl.where(visible, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@variant(IgnoresTheWindow)
def SeesAllBefore(*arguments, **options):
    """The same, in positions."""
    return launch_paged_prefill(_sees_all_before, *arguments, **options)


@triton.jit
def _hides_with_zero(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = context_len - query_len + rows // GQA_RATIO
    last = context_len
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
        scores = tl.where((distance >= 0) & (distance < window), scores, 0.0)
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@mutant
def HidesWithZero(*arguments, **options):
    """You set hidden scores to 0. A score of 0 has weight like any other: hide with minus infinity."""
    return launch_paged_prefill(_hides_with_zero, *arguments, **options)


@triton.jit
def _scores_of_zero(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = context_len - query_len + rows // GQA_RATIO
    last = context_len
    k_head, v_head = k_ptr + kv_head * kv_stride_head, v_ptr + kv_head * kv_stride_head
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(0, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = (block * BLOCK_SIZE + positions % BLOCK_SIZE) * kv_stride_slot
        k = load_tile(k_head, slots, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_head, slots, inside, HEAD_DIM, PADDED_DIM)
        visible = inside[None, :] & (positions[None, :] <= own[:, None]) & (positions[None, :] > own[:, None] - window)
        scores = tl.where(visible, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, 0.0)
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@variant(HidesWithZero)
def ScoresOfZero(*arguments, **options):
    """The same, in positions."""
    return launch_paged_prefill(_scores_of_zero, *arguments, **options)


@triton.jit
def _stops_at_the_first_token(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = context_len - query_len + rows // GQA_RATIO
    last = tl.min(own, 0) + 1
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
        scores = tl.where(inside[None, :] & (distance >= 0) & (distance < window), scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@mutant
def StopsAtTheFirstToken(*arguments, **options):
    """You walk as far as the first token of the tile may see. The others may see further: go on to the highest of
    the rows' positions."""
    return launch_paged_prefill(_stops_at_the_first_token, *arguments, **options)


@triton.jit
def _ends_with_the_first_row(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = context_len - query_len + rows // GQA_RATIO
    last = context_len - query_len + tl.min(rows // GQA_RATIO, 0) + 1
    k_head, v_head = k_ptr + kv_head * kv_stride_head, v_ptr + kv_head * kv_stride_head
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(0, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = (block * BLOCK_SIZE + positions % BLOCK_SIZE) * kv_stride_slot
        k = load_tile(k_head, slots, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_head, slots, inside, HEAD_DIM, PADDED_DIM)
        visible = inside[None, :] & (positions[None, :] <= own[:, None]) & (positions[None, :] > own[:, None] - window)
        scores = tl.where(visible, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@variant(StopsAtTheFirstToken)
def EndsWithTheFirstRow(*arguments, **options):
    """The same, with the lowest position found another way."""
    return launch_paged_prefill(_ends_with_the_first_row, *arguments, **options)


@triton.jit
def _always_the_first_k_v_head(
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
        offsets = page_slots(table_ptr, positions, inside, BLOCK_SIZE) * kv_stride_slot
        k = load_tile(k_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_ptr, offsets, inside, HEAD_DIM, PADDED_DIM)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        distance = own[:, None] - positions[None, :]
        scores = tl.where((distance >= 0) & (distance < window), scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@mutant
def AlwaysTheFirstKVHead(*arguments, **options):
    """All query heads read the first K/V head. Head h of a slot begins `h * kv_stride_head` numbers behind the
    slot's first."""
    return launch_paged_prefill(_always_the_first_k_v_head, *arguments, **options)


@triton.jit
def _passes_over_the_heads(
    q, rows, kv_head, query_len, context_len, window, k_ptr, v_ptr, table_ptr, scale, kv_stride_slot, kv_stride_head,
    GQA_RATIO: tl.constexpr, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    own = context_len - query_len + rows // GQA_RATIO
    last = context_len
    k_head, v_head = k_ptr, v_ptr
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    for start in range(0, last, TILE):
        positions = start + tl.arange(0, TILE)
        inside = positions < last
        block = tl.load(table_ptr + positions // BLOCK_SIZE, mask=inside, other=0)
        slots = (block * BLOCK_SIZE + positions % BLOCK_SIZE) * kv_stride_slot
        k = load_tile(k_head, slots, inside, HEAD_DIM, PADDED_DIM)
        v = load_tile(v_head, slots, inside, HEAD_DIM, PADDED_DIM)
        visible = inside[None, :] & (positions[None, :] <= own[:, None]) & (positions[None, :] > own[:, None] - window)
        scores = tl.where(visible, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@variant(AlwaysTheFirstKVHead)
def PassesOverTheHeads(*arguments, **options):
    """The same, with the heads left out of the pointers."""
    return launch_paged_prefill(_passes_over_the_heads, *arguments, **options)


@triton.jit
def _window_off_by_one(
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
        scores = tl.where((distance >= 0) & (distance <= window), scores, float("-inf"))
        highest, total, acc = softmax_step(scores, v, highest, total, acc)
    return total, acc


@unknown_bug
def WindowOffByOne(*arguments, **options):
    """Sees one position too many behind its window."""
    return launch_paged_prefill(_window_off_by_one, *arguments, **options)
