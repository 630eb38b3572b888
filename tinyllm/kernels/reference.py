"""What the kernels compute, in plain torch: the oracle that each is held against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def store_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """Scatter the K and V of T tokens into the pool.

    Args:
        k, v: [T, Hkv, D].
        k_cache, v_cache: [num_slots, Hkv, D], written in place, in their own dtype.
        slot_mapping: [T], the slot of each token; -1 skips it.
    """
    kept = slot_mapping >= 0
    slots = slot_mapping[kept].long()
    k_cache[slots] = k[kept].to(k_cache.dtype)
    v_cache[slots] = v[kept].to(v_cache.dtype)


def paged_attention_with_lse(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    query_start_loc: Tensor,
    block_size: int,
    *,
    scale: float | None = None,
    sliding_window: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Causal attention of B sequences' new tokens over their pages: gather the context of each, then attend.

    Args:
        q: [T, Hq, D]; tokens `query_start_loc[i]` to `query_start_loc[i + 1] - 1` are the last of sequence i.
        k_cache, v_cache: [num_slots, Hkv, D]; slot s of block b is row `b * block_size + s`.
        block_tables: [B, max_blocks], blocks of each sequence in order; entries past its context are not read.
        context_lens: [B], tokens of each sequence in the cache, the new ones included.
        query_start_loc: [B + 1].
        block_size: P, of any size.
        scale: factor of the scores, above 0; 1 / sqrt(D) by default.
        sliding_window: a token sees itself and the `sliding_window - 1` before it; all before it by default.
        dtype: what to compute in; float64 makes this the oracle of float32 kernels.

    Returns:
        The output [T, Hq, D] and the log-sum-exp of each row's scores [T, Hq], both in `dtype`. A token of a
        sequence with an empty context gets 0 and -inf.
    """
    out = torch.zeros(q.shape, dtype=dtype, device=q.device)
    lse = torch.full(q.shape[:2], float("-inf"), dtype=dtype, device=q.device)
    starts = query_start_loc.tolist()
    for i, context_len in enumerate(context_lens.tolist()):
        rows = slice(starts[i], starts[i + 1])
        positions = torch.arange(context_len, device=q.device)
        slots = block_tables[i, positions // block_size].long() * block_size + positions % block_size
        query_positions = torch.arange(context_len - (rows.stop - rows.start), context_len, device=q.device)
        distance = query_positions[:, None] - positions
        visible = distance >= 0
        if sliding_window is not None:
            visible &= distance < sliding_window
        out[rows], lse[rows] = attend(
            q[rows].to(dtype), k_cache[slots].to(dtype), v_cache[slots].to(dtype), visible, scale
        )
    return out, lse


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, scale: float | None = None) -> tuple[Tensor, Tensor]:
    """Softmax attention with grouped heads, and the log-sum-exp that merging needs.

    Args:
        q: [t, Hq, D].
        k, v: [s, Hkv, D].
        visible: [t, s] bool, True where a query may look.

    Returns:
        [t, Hq, D] and [t, Hq]; a row that sees nothing gets 0 and -inf.
    """
    tokens, num_heads, head_dim = q.shape
    num_kv_heads = k.shape[1]
    grouped = q.reshape(tokens, num_kv_heads, num_heads // num_kv_heads, head_dim)
    scores = torch.einsum("tkgd,skd->kgts", grouped, k) * (head_dim**-0.5 if scale is None else scale)
    scores = scores.masked_fill(~visible, float("-inf"))
    lse = scores.logsumexp(-1)
    weights = (scores - lse.masked_fill(lse.isneginf(), 0.0)[..., None]).exp()
    out = torch.einsum("kgts,skd->tkgd", weights, v)
    return out.reshape(q.shape), lse.permute(2, 0, 1).reshape(tokens, num_heads)


def merge_attention_states(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over two sets of positions, from the attention over each: online softmax.

    A softmax over both sets weighs each set's output by its share of the total `exp(lse_a) + exp(lse_b)`. The larger
    of the two is taken out first, so that no `exp` overflows.

    Args:
        out_a, out_b: [..., D].
        lse_a, lse_b: [...] float32, natural log-sum-exp of the scores; -inf is an empty set, whose output is not read.

    Returns:
        The merged output and log-sum-exp, as new tensors.
    """
    highest = torch.maximum(lse_a, lse_b)
    shift = highest.masked_fill(highest.isneginf(), 0.0)
    share_a, share_b = (lse_a - shift).exp(), (lse_b - shift).exp()
    total = share_a + share_b
    part_a = out_a.masked_fill((share_a == 0)[..., None], 0.0) * share_a[..., None]
    part_b = out_b.masked_fill((share_b == 0)[..., None], 0.0) * share_b[..., None]
    out = (part_a + part_b) / total.masked_fill(total == 0, 1.0)[..., None]
    return out, shift + total.log()


def grouped_gemm(a: Tensor, w: Tensor, topk_ids: Tensor, topk_weights: Tensor | None = None) -> Tensor:
    """Multiply the row of every pair by its expert's matrix, one pair after another.

    Args:
        a: [T or T * K, depth], one row a token or one a pair.
        w: [E, N, depth].
        topk_ids: [T, K]; a pair whose id is not one of 0..E-1 gets 0.
        topk_weights: [T, K], to multiply each pair's product by; None does not.

    Returns:
        [T * K, N], in float64.
    """
    rows = a.double().repeat_interleave(topk_ids.numel() // len(a), dim=0) if len(a) else a.double()
    out = torch.zeros(topk_ids.numel(), w.shape[1], dtype=torch.float64, device=a.device)
    for pair, expert in enumerate(topk_ids.flatten().tolist()):
        if 0 <= expert < len(w):
            out[pair] = w[expert].double() @ rows[pair]
    return out if topk_weights is None else out * topk_weights.double().reshape(-1, 1)


def swiglu(gate_up: Tensor) -> Tensor:
    """[..., 2I] -> [..., I]: `silu(gate) * up`, gate and up being the two halves (arXiv 2002.05202)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up
