"""Other right ways to `paged_attention`."""

import torch
from torch import Tensor

from grader.mutants import alternate


@alternate
def one_query_at_a_time(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """No mask at all: each query is given the keys that it may see, and the heads of a group are its rows."""
    out = torch.zeros_like(q)
    num_kv_heads = k_cache.shape[1]
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        blocks = block_tables[i, : -(-context_len // block_size)].long()
        slots = (blocks[:, None] * block_size + torch.arange(block_size)).flatten()[:context_len]
        for t in range(starts[i], starts[i + 1]):
            visible = slots[: context_len - (starts[i + 1] - 1 - t)]
            grouped = q[t].reshape(num_kv_heads, -1, q.shape[2])  # [Hkv, Hq / Hkv, D]
            scores = torch.einsum("kgd,skd->kgs", grouped, k_cache[visible]) * q.shape[2] ** -0.5
            attended = torch.einsum("kgs,skd->kgd", scores.softmax(-1), v_cache[visible])
            out[t] = attended.reshape(q.shape[1:])
    return out


@alternate
def block_by_block(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """Online softmax over the blocks, as the kernels do it: no copy of the context is made."""
    out = torch.zeros_like(q)
    group = q.shape[1] // k_cache.shape[1]
    for i in range(len(context_lens)):
        start, stop, context_len = int(query_start_loc[i]), int(query_start_loc[i + 1]), int(context_lens[i])
        queries = q[start:stop] * q.shape[2] ** -0.5
        query_positions = torch.arange(context_len - (stop - start), context_len)
        highest = torch.full(queries.shape[:2], -torch.inf)
        total = torch.zeros(queries.shape[:2])
        summed = torch.zeros(queries.shape)
        for j in range(-(-context_len // block_size)):
            first = int(block_tables[i, j]) * block_size
            keys = k_cache[first : first + block_size].repeat_interleave(group, 1)
            values = v_cache[first : first + block_size].repeat_interleave(group, 1)
            visible = torch.arange(j * block_size, (j + 1) * block_size) <= query_positions[:, None]
            scores = torch.einsum("thd,shd->ths", queries, keys).masked_fill(~visible[:, None], -torch.inf)
            new_highest = torch.maximum(highest, scores.amax(-1))
            safe = new_highest.masked_fill(new_highest.isneginf(), 0.0)
            weights = (scores - safe[..., None]).exp()
            shrink = (highest - safe).exp()
            total = total * shrink + weights.sum(-1)
            summed = summed * shrink[..., None] + torch.einsum("ths,shd->thd", weights, values)
            highest = new_highest
        out[start:stop] = summed / total[..., None]
    return out


@alternate
def one_padded_batch(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """All sequences at once: the batch is padded on both sides, and the padding masked."""
    lens, query_lens = context_lens.long(), query_start_loc.diff().long()
    longest, most = int(lens.max()), int(query_lens.max())
    positions = torch.arange(longest)
    slots = block_tables.long()[:, positions // block_size] * block_size + positions % block_size  # [B, S]
    group = q.shape[1] // k_cache.shape[1]
    keys, values = (cache[slots].repeat_interleave(group, 2) for cache in (k_cache, v_cache))  # [B, S, Hq, D]
    sequence = torch.arange(len(lens)).repeat_interleave(query_lens)
    place = torch.arange(len(q)) - query_start_loc[:-1].long().repeat_interleave(query_lens)
    padded = q.new_zeros(len(lens), most, *q.shape[1:])
    padded[sequence, place] = q
    query_positions = (lens - query_lens)[:, None] + torch.arange(most)  # [B, t]
    visible = positions <= query_positions.clamp(max=longest - 1)[..., None]  # [B, t, S]
    scores = torch.einsum("bthd,bshd->bhts", padded, keys) / q.shape[2] ** 0.5
    weights = scores.masked_fill(~visible[:, None], -torch.inf).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", weights, values)[sequence, place]
