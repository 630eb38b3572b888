"""Attention of new tokens over their sequences' pages, in plain torch: gather through the block table, then attend."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def paged_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
) -> Tensor:
    """Causal attention of the new tokens of B sequences, whose keys and values are in the pool already.

    Query head h reads KV head h // (Hq / Hkv). Scores are scaled by 1 / sqrt(D).

    Args:
        q: [T, Hq, D]; rows `query_start_loc[i]` to `query_start_loc[i + 1] - 1` are the last tokens of sequence i, one
            at least.
        k_cache, v_cache: [N * P, Hkv, D], in the dtype of q; position p of a sequence is in slot `block * P + p % P`.
            Slots of no position may hold NaN.
        block_tables: [B, max_blocks], the blocks of each sequence in order, then padding that must not be read.
        context_lens: [B], tokens of each sequence in the pool, the new ones included.
        query_start_loc: [B + 1].
        block_size: P.

    Returns:
        [T, Hq, D], in the dtype of q.
    """
    out = torch.empty_like(q)
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        rows = slice(starts[i], starts[i + 1])
        positions = torch.arange(context_len, device=q.device)
        slots = block_tables[i, positions // block_size].long() * block_size + positions % block_size
        first = context_len - (rows.stop - rows.start)  # the position of the first new token
        heads = F.scaled_dot_product_attention(
            q[rows].transpose(0, 1)[None],
            k_cache[slots].transpose(0, 1)[None],
            v_cache[slots].transpose(0, 1)[None],
            attn_mask=positions <= positions[first:, None],
            enable_gqa=True,
        )
        out[rows] = heads[0].transpose(0, 1)
    return out
