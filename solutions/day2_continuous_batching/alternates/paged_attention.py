"""Other right ways to `paged_attention`."""

import torch

from grader.mutants import alternate


@alternate
def one_query_at_a_time(q, k_cache, v_cache, block_tables, context_lens, query_start_loc, block_size):
    """No mask at all: each query is given the keys that it may see, and the heads of a group are its rows."""
    rows = []
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        for t in range(starts[i], starts[i + 1]):
            visible = torch.arange(context_len - (starts[i + 1] - 1 - t))
            slots = block_tables[i, visible // block_size] * block_size + visible % block_size
            grouped = q[t].float().reshape(k_cache.shape[1], -1, q.shape[2])  # [Hkv, Hq / Hkv, D]
            scores = torch.einsum("kgd,skd->kgs", grouped, k_cache[slots].float()) * q.shape[2] ** -0.5
            attended = torch.einsum("kgs,skd->kgd", scores.softmax(-1), v_cache[slots].float())
            rows.append(attended.reshape(q.shape[1:]).to(q.dtype))
    return torch.stack(rows)


@alternate
def block_by_block(q, k_cache, v_cache, block_tables, context_lens, query_start_loc, block_size):
    """Online softmax over the blocks, as the kernels do it, in float32: no copy of the context is made."""
    chunks = []
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        queries = q[starts[i] : starts[i + 1]].float() * q.shape[2] ** -0.5
        query_positions = torch.arange(context_len - len(queries), context_len)
        highest = torch.full(queries.shape[:2], -torch.inf)
        total, summed = torch.zeros(queries.shape[:2]), torch.zeros(queries.shape)
        for start in range(0, context_len, block_size):
            positions = torch.arange(start, min(start + block_size, context_len))
            slots = block_tables[i, start // block_size] * block_size + positions - start
            keys, values = (
                cache[slots].float().repeat_interleave(q.shape[1] // cache.shape[1], 1) for cache in (k_cache, v_cache)
            )
            hidden = positions > query_positions[:, None]
            scores = torch.einsum("thd,shd->ths", queries, keys).masked_fill(hidden[:, None], -torch.inf)
            new_highest = torch.maximum(highest, scores.amax(-1))
            weights = (scores - new_highest[..., None]).exp()
            shrink = (highest - new_highest).exp()
            total = total * shrink + weights.sum(-1)
            summed = summed * shrink[..., None] + torch.einsum("ths,shd->thd", weights, values)
            highest = new_highest
        chunks.append(summed / total[..., None])
    return torch.cat(chunks).to(q.dtype)
