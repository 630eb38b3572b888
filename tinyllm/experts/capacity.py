"""Expert capacity: a fixed number of places an expert, as trainers have it, and what is dropped beyond."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def expert_capacity(num_tokens: int, top_k: int, num_experts: int, capacity_factor: float) -> int:
    """How many pairs an expert takes: its even share T * K / E times the factor, rounded up, and at least 1.

    Switch Transformers (arXiv 2101.03961), equation 3. Rounded up, since a small batch would get no place at all.

    Args:
        capacity_factor: 1.0 leaves no room for unevenness; trainers take 1.0 to 2.0.
    """
    return max(1, math.ceil(num_tokens * top_k / num_experts * capacity_factor))


def drop_over_capacity(topk_ids: Tensor, num_experts: int, capacity: int) -> Tensor:
    """Leave out the pairs that find their expert full; places go to the earlier tokens, and in a token in order of K.

    A dropped pair adds nothing and the other weights of its token stay as they are: the residual stream carries the
    token past the layer.

    Args:
        topk_ids: [T, K]; a pair that is -1 already takes no place.
        capacity: places of an expert, of `expert_capacity`.

    Returns:
        [T, K], a copy in which each pair that is dropped is -1.
    """
    ids = topk_ids.flatten()
    taken = one_hot(ids.clamp(min=-1) + 1, num_experts + 1)[:, 1:]  # [T * K, E]: 1 where a pair asks for a place
    place = (taken.cumsum(dim=0) * taken).sum(dim=1)  # [T * K]: 1 for the first pair of its expert
    return torch.where(place > capacity, -1, ids).view(topk_ids.shape)
