"""Other right ways to `drop_over_capacity`."""

import torch
from torch import Tensor

from grader.mutants import alternate


@alternate
def pair_by_pair(topk_ids: Tensor, num_experts: int, capacity: int) -> Tensor:
    """A loop over the pairs, with the places that are left."""
    left = [capacity] * num_experts
    kept = topk_ids.clone()
    for token, row in enumerate(topk_ids.tolist()):
        for k, expert in enumerate(row):
            if expert >= 0:
                left[expert] -= 1
                if left[expert] < 0:
                    kept[token, k] = -1
    return kept


@alternate
def expert_by_expert(topk_ids: Tensor, num_experts: int, capacity: int) -> Tensor:
    """Each expert drops what stands behind its first places."""
    kept = topk_ids.reshape(-1).clone()
    for expert in range(num_experts):
        kept[torch.where(kept == expert)[0][capacity:]] = -1
    return kept.view(topk_ids.shape)


@alternate
def sorted_by_expert(topk_ids: Tensor, num_experts: int, capacity: int) -> Tensor:
    """In a stable sort a pair's place is how far it stands behind the first pair of its expert."""
    ordered, order = topk_ids.flatten().sort(stable=True)
    place = torch.arange(len(order)) - torch.searchsorted(ordered, ordered)
    kept = ordered.masked_fill(place >= capacity, -1)  # -1 stays -1, on time or late
    return kept[order.argsort()].view(topk_ids.shape)
