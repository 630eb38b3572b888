"""Mistakes that people make in `paged_attention`."""

import torch
import torch.nn.functional as F
from torch import Tensor

from grader.mutants import mutant, unknown_bug, variant


@mutant
def counts_queries_from_the_start(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """Your causal mask takes the new tokens for the first ones of the sequence. They are its last: the first of t new
    tokens stands at position `context_len - t`, and sees everything up to there."""
    out = torch.empty_like(q)
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        rows = slice(starts[i], starts[i + 1])
        positions = torch.arange(context_len)
        slots = block_tables[i, positions // block_size].long() * block_size + positions % block_size
        heads = F.scaled_dot_product_attention(
            q[rows].transpose(0, 1)[None],
            k_cache[slots].transpose(0, 1)[None],
            v_cache[slots].transpose(0, 1)[None],
            attn_mask=positions <= torch.arange(rows.stop - rows.start)[:, None],
            enable_gqa=True,
        )
        out[rows] = heads[0].transpose(0, 1)
    return out


@variant(counts_queries_from_the_start)
def lower_triangle(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """The same, with a lower triangle."""
    out = torch.zeros_like(q)
    group = q.shape[1] // k_cache.shape[1]
    for i in range(len(context_lens)):
        start, stop = int(query_start_loc[i]), int(query_start_loc[i + 1])
        length = int(context_lens[i])
        slots = [int(block_tables[i, p // block_size]) * block_size + p % block_size for p in range(length)]
        keys = k_cache[slots].repeat_interleave(group, 1)
        values = v_cache[slots].repeat_interleave(group, 1)
        scores = torch.einsum("thd,shd->hts", q[start:stop], keys) / q.shape[-1] ** 0.5
        seen = torch.ones(stop - start, length).tril().bool()
        scores = scores.masked_fill(~seen, float("-inf"))
        weights = scores.softmax(-1)
        out[start:stop] = torch.einsum("hts,shd->thd", weights, values)
    return out


@mutant
def sees_the_future(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """A new token looks at the tokens after it. In a chunk of several tokens each may see itself and those before it
    only; in decoding there is nothing after it, so that only prefill goes wrong."""
    out = torch.empty_like(q)
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        rows = slice(starts[i], starts[i + 1])
        positions = torch.arange(context_len)
        slots = block_tables[i, positions // block_size].long() * block_size + positions % block_size
        heads = F.scaled_dot_product_attention(
            q[rows].transpose(0, 1)[None],
            k_cache[slots].transpose(0, 1)[None],
            v_cache[slots].transpose(0, 1)[None],
            attn_mask=torch.ones(rows.stop - rows.start, context_len, dtype=torch.bool),
            enable_gqa=True,
        )
        out[rows] = heads[0].transpose(0, 1)
    return out


@variant(sees_the_future)
def sees_the_whole_context(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """The same, with a mask that covers the context's length only."""
    out = torch.zeros_like(q)
    group = q.shape[1] // k_cache.shape[1]
    for i in range(len(context_lens)):
        start, stop = int(query_start_loc[i]), int(query_start_loc[i + 1])
        length = int(context_lens[i])
        slots = [int(block_tables[i, p // block_size]) * block_size + p % block_size for p in range(length)]
        keys = k_cache[slots].repeat_interleave(group, 1)
        values = v_cache[slots].repeat_interleave(group, 1)
        scores = torch.einsum("thd,shd->hts", q[start:stop], keys) / q.shape[-1] ** 0.5
        seen = torch.arange(length).expand(stop - start, -1) < length
        scores = scores.masked_fill(~seen, float("-inf"))
        weights = scores.softmax(-1)
        out[start:stop] = torch.einsum("hts,shd->thd", weights, values)
    return out


@mutant
def repeats_heads_in_turns(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """Your query heads take the KV heads in turns: 0, 1, 0, 1. Neighbours share one: query head h reads KV head
    h // (Hq / Hkv), that is 0, 0, 1, 1."""
    out = torch.zeros_like(q)
    group = q.shape[1] // k_cache.shape[1]
    for i in range(len(context_lens)):
        start, stop = int(query_start_loc[i]), int(query_start_loc[i + 1])
        length = int(context_lens[i])
        slots = [int(block_tables[i, p // block_size]) * block_size + p % block_size for p in range(length)]
        keys = k_cache[slots].repeat(1, group, 1)
        values = v_cache[slots].repeat(1, group, 1)
        scores = torch.einsum("thd,shd->hts", q[start:stop], keys) / q.shape[-1] ** 0.5
        seen = torch.ones(stop - start, length).tril(length - (stop - start)).bool()
        scores = scores.masked_fill(~seen, float("-inf"))
        weights = scores.softmax(-1)
        out[start:stop] = torch.einsum("hts,shd->thd", weights, values)
    return out


@variant(repeats_heads_in_turns)
def takes_the_remainder(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """The same, by the remainder."""
    out = torch.empty_like(q)
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        rows = slice(starts[i], starts[i + 1])
        positions = torch.arange(context_len)
        slots = block_tables[i, positions // block_size].long() * block_size + positions % block_size
        first = context_len - (rows.stop - rows.start)
        heads = F.scaled_dot_product_attention(
            q[rows].transpose(0, 1)[None],
            k_cache[slots][:, torch.arange(q.shape[1]) % k_cache.shape[1]].transpose(0, 1)[None],
            v_cache[slots][:, torch.arange(q.shape[1]) % v_cache.shape[1]].transpose(0, 1)[None],
            attn_mask=positions <= positions[first:, None],
            enable_gqa=True,
        )
        out[rows] = heads[0].transpose(0, 1)
    return out


@mutant
def forgets_to_scale(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """Your scores are not divided by the square root of D."""
    out = torch.zeros_like(q)
    group = q.shape[1] // k_cache.shape[1]
    for i in range(len(context_lens)):
        start, stop = int(query_start_loc[i]), int(query_start_loc[i + 1])
        length = int(context_lens[i])
        slots = [int(block_tables[i, p // block_size]) * block_size + p % block_size for p in range(length)]
        keys = k_cache[slots].repeat_interleave(group, 1)
        values = v_cache[slots].repeat_interleave(group, 1)
        scores = torch.einsum("thd,shd->hts", q[start:stop], keys)
        seen = torch.ones(stop - start, length).tril(length - (stop - start)).bool()
        scores = scores.masked_fill(~seen, float("-inf"))
        weights = scores.softmax(-1)
        out[start:stop] = torch.einsum("hts,shd->thd", weights, values)
    return out


@variant(forgets_to_scale)
def scales_by_one(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """The same, said to torch."""
    out = torch.empty_like(q)
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        rows = slice(starts[i], starts[i + 1])
        positions = torch.arange(context_len)
        slots = block_tables[i, positions // block_size].long() * block_size + positions % block_size
        first = context_len - (rows.stop - rows.start)
        heads = F.scaled_dot_product_attention(
            q[rows].transpose(0, 1)[None],
            k_cache[slots].transpose(0, 1)[None],
            v_cache[slots].transpose(0, 1)[None],
            attn_mask=positions <= positions[first:, None],
            enable_gqa=True,
            scale=1.0,
        )
        out[rows] = heads[0].transpose(0, 1)
    return out


@mutant
def scales_twice(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """Your scores are scaled twice. `scaled_dot_product_attention` divides by the square root of D itself."""
    out = torch.empty_like(q)
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        rows = slice(starts[i], starts[i + 1])
        positions = torch.arange(context_len)
        slots = block_tables[i, positions // block_size].long() * block_size + positions % block_size
        first = context_len - (rows.stop - rows.start)
        heads = F.scaled_dot_product_attention(
            (q[rows] * q.shape[-1] ** -0.5).transpose(0, 1)[None],
            k_cache[slots].transpose(0, 1)[None],
            v_cache[slots].transpose(0, 1)[None],
            attn_mask=positions <= positions[first:, None],
            enable_gqa=True,
        )
        out[rows] = heads[0].transpose(0, 1)
    return out


@variant(scales_twice)
def divides_by_head_dim(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """The same: it divides by D and not by its square root."""
    out = torch.zeros_like(q)
    group = q.shape[1] // k_cache.shape[1]
    for i in range(len(context_lens)):
        start, stop = int(query_start_loc[i]), int(query_start_loc[i + 1])
        length = int(context_lens[i])
        slots = [int(block_tables[i, p // block_size]) * block_size + p % block_size for p in range(length)]
        keys = k_cache[slots].repeat_interleave(group, 1)
        values = v_cache[slots].repeat_interleave(group, 1)
        scores = torch.einsum("thd,shd->hts", q[start:stop], keys) / q.shape[-1]
        seen = torch.ones(stop - start, length).tril(length - (stop - start)).bool()
        scores = scores.masked_fill(~seen, float("-inf"))
        weights = scores.softmax(-1)
        out[start:stop] = torch.einsum("hts,shd->thd", weights, values)
    return out


@mutant
def reads_whole_blocks(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """You attend to every slot of the sequence's blocks. Those after the last token hold what an earlier owner of the
    block has left there; stop at `context_lens`."""
    out = torch.empty_like(q)
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        rows = slice(starts[i], starts[i + 1])
        num_slots = -(-context_len // block_size) * block_size
        positions = torch.arange(num_slots)
        slots = block_tables[i, positions // block_size].long() * block_size + positions % block_size
        first = context_len - (rows.stop - rows.start)
        past = positions >= context_len
        heads = F.scaled_dot_product_attention(
            q[rows].transpose(0, 1)[None],
            k_cache[slots].transpose(0, 1)[None],
            v_cache[slots].transpose(0, 1)[None],
            attn_mask=(positions <= positions[first:context_len, None]) | past,
            enable_gqa=True,
        )
        out[rows] = heads[0].transpose(0, 1)
    return out


@variant(reads_whole_blocks)
def flattens_the_blocks(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """The same, with the blocks' slots listed one block after another."""
    out = torch.zeros_like(q)
    group = q.shape[1] // k_cache.shape[1]
    for i in range(len(context_lens)):
        start, stop, length = int(query_start_loc[i]), int(query_start_loc[i + 1]), int(context_lens[i])
        blocks = block_tables[i, : (length + block_size - 1) // block_size].long()
        slots = (blocks[:, None] * block_size + torch.arange(block_size)).flatten()
        keys = k_cache[slots].repeat_interleave(group, 1)
        values = v_cache[slots].repeat_interleave(group, 1)
        scores = torch.einsum("thd,shd->hts", q[start:stop], keys) / q.shape[-1] ** 0.5
        for t in range(stop - start):
            scores[:, t, length - (stop - start) + t + 1 : length] = float("-inf")
        out[start:stop] = torch.einsum("hts,shd->thd", scores.softmax(-1), values)
    return out


@mutant
def reads_on_from_the_first_block(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """You take the first block from the table and read on behind it. The next tokens are in the table's next block,
    which may be anywhere in the pool."""
    out = torch.empty_like(q)
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        rows = slice(starts[i], starts[i + 1])
        positions = torch.arange(context_len)
        slots = (block_tables[i, 0].long() * block_size + positions) % len(k_cache)
        first = context_len - (rows.stop - rows.start)
        heads = F.scaled_dot_product_attention(
            q[rows].transpose(0, 1)[None],
            k_cache[slots].transpose(0, 1)[None],
            v_cache[slots].transpose(0, 1)[None],
            attn_mask=positions <= positions[first:, None],
            enable_gqa=True,
        )
        out[rows] = heads[0].transpose(0, 1)
    return out


@variant(reads_on_from_the_first_block)
def slices_the_pool(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """The same, as a slice of the pool that starts over at its end."""
    out = torch.zeros_like(q)
    group = q.shape[1] // k_cache.shape[1]
    for i in range(len(context_lens)):
        start, stop = int(query_start_loc[i]), int(query_start_loc[i + 1])
        length = int(context_lens[i])
        slots = [(int(block_tables[i, 0]) * block_size + p) % k_cache.shape[0] for p in range(length)]
        keys = k_cache[slots].repeat_interleave(group, 1)
        values = v_cache[slots].repeat_interleave(group, 1)
        scores = torch.einsum("thd,shd->hts", q[start:stop], keys) / q.shape[-1] ** 0.5
        seen = torch.ones(stop - start, length).tril(length - (stop - start)).bool()
        scores = scores.masked_fill(~seen, float("-inf"))
        weights = scores.softmax(-1)
        out[start:stop] = torch.einsum("hts,shd->thd", weights, values)
    return out


@mutant
def exponentials_as_they_are(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """You take exp of the scores as they are. In float32 that is infinite from about 89 on, and infinite divided by
    infinite is NaN. Take the largest score of a row out first, or use `softmax`, which does."""
    out = torch.zeros_like(q)
    group = q.shape[1] // k_cache.shape[1]
    for i in range(len(context_lens)):
        start, stop = int(query_start_loc[i]), int(query_start_loc[i + 1])
        length = int(context_lens[i])
        slots = [int(block_tables[i, p // block_size]) * block_size + p % block_size for p in range(length)]
        keys = k_cache[slots].repeat_interleave(group, 1)
        values = v_cache[slots].repeat_interleave(group, 1)
        scores = torch.einsum("thd,shd->hts", q[start:stop], keys) / q.shape[-1] ** 0.5
        seen = torch.ones(stop - start, length).tril(length - (stop - start)).bool()
        scores = scores.masked_fill(~seen, float("-inf"))
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        out[start:stop] = torch.einsum("hts,shd->thd", weights, values)
    return out


@variant(exponentials_as_they_are)
def divides_at_the_end(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """The same, dividing the sum of the values at the end."""
    out = torch.zeros_like(q)
    group = q.shape[1] // k_cache.shape[1]
    starts = query_start_loc.tolist()
    for i, length in enumerate(context_lens.tolist()):
        positions = torch.arange(length)
        slots = block_tables[i, positions // block_size].long() * block_size + positions % block_size
        for t in range(starts[i], starts[i + 1]):
            visible = slots[: length - (starts[i + 1] - 1 - t)]
            for head in range(q.shape[1]):
                weights = torch.exp(k_cache[visible, head // group] @ q[t, head] * q.shape[2] ** -0.5)
                out[t, head] = (weights @ v_cache[visible, head // group]) / weights.sum()
    return out


@unknown_bug
def forgets_the_last_token(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """Looks at the tokens before a new one and not at itself, unless it is the first."""
    out = torch.empty_like(q)
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        rows = slice(starts[i], starts[i + 1])
        positions = torch.arange(context_len)
        slots = block_tables[i, positions // block_size].long() * block_size + positions % block_size
        first = context_len - (rows.stop - rows.start)
        heads = F.scaled_dot_product_attention(
            q[rows].transpose(0, 1)[None],
            k_cache[slots].transpose(0, 1)[None],
            v_cache[slots].transpose(0, 1)[None],
            attn_mask=(positions < positions[first:, None]) | ((positions == 0) & (positions[first:, None] == 0)),
            enable_gqa=True,
        )
        out[rows] = heads[0].transpose(0, 1)
    return out


@unknown_bug
def swaps_keys_and_values(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """Scores against values and sums up keys."""
    out = torch.empty_like(q)
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        rows = slice(starts[i], starts[i + 1])
        positions = torch.arange(context_len)
        slots = block_tables[i, positions // block_size].long() * block_size + positions % block_size
        first = context_len - (rows.stop - rows.start)
        heads = F.scaled_dot_product_attention(
            q[rows].transpose(0, 1)[None],
            v_cache[slots].transpose(0, 1)[None],
            k_cache[slots].transpose(0, 1)[None],
            attn_mask=positions <= positions[first:, None],
            enable_gqa=True,
        )
        out[rows] = heads[0].transpose(0, 1)
    return out
