"""Expert capacity: a fixed number of places an expert, as trainers have it, and what is dropped beyond."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def expert_capacity(num_tokens: int, top_k: int, num_experts: int, capacity_factor: float) -> int:
    """How many pairs an expert takes: its even share T * K / E times the factor, rounded up, and at least 1.

    Switch Transformers (arXiv 2101.03961), equation 3. Rounded up, since a small batch would get no place at all.

    Args:
        num_tokens: T, which may be 0.
        top_k: K, experts a token.
        num_experts: E.
        capacity_factor: 1.0 leaves no room for unevenness; trainers take 1.0 to 2.0.
    """
    return max(1, math.ceil(num_tokens * top_k / num_experts * capacity_factor))


def drop_over_capacity(topk_ids: Tensor, num_experts: int, capacity: int) -> Tensor:
    """Leave out the pairs that find their expert full; places go to the earlier tokens, and in a token in order of K.

    A dropped pair adds nothing and the other weights of its token stay as they are: the residual stream carries the
    token past the layer.

    Args:
        topk_ids: [T, K]; a pair that is -1 already takes no place.
        num_experts: E.
        capacity: places of an expert, of `expert_capacity`.

    Returns:
        [T, K], a copy in the same dtype, in which each pair that is dropped is -1.
    """
    ids = topk_ids.flatten()
    asks = ids[:, None] == torch.arange(num_experts, device=ids.device)  # [T * K, E]: which pair asks which expert
    place = (asks.cumsum(dim=0) * asks).sum(dim=1)  # [T * K]: 1 for the first pair of its expert
    return torch.where(place > capacity, -1, ids).view(topk_ids.shape)
