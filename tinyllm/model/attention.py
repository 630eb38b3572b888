"""Attention without a cache: whole sequences at once, for training and as the oracle in tests."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tinyllm.model.ops import Attend


def causal_attend(num_seqs: int = 1) -> Attend:
    """Attention for a flattened batch of `num_seqs` whole sequences of equal length. Works with autograd.

    Args:
        num_seqs: B; the T tokens of the step are B sequences of T / B tokens, one after another.

    Returns:
        An `Attend` that keeps nothing, for `LayerOps`.
    """

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        group = q.shape[1] // k.shape[1]
        # [T, H, D] -> [B, H, T / B, D]
        q, k, v = (x.unflatten(0, (num_seqs, -1)).transpose(1, 2) for x in (q, k, v))
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))  # query head h reads kv head h // group
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return out.transpose(1, 2).flatten(0, 1)

    return attend
