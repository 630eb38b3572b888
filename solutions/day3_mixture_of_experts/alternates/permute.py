"""Other right ways to `permute`."""

import torch
from torch import Tensor

from grader.mutants import alternate


@alternate
def expert_after_expert(x: Tensor, topk_ids: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """A search through all tokens for each expert, as the loop over experts has it."""
    found = [torch.where(topk_ids == expert) for expert in range(num_experts)]
    tokens = torch.cat([token for token, _ in found])
    places = torch.cat([place for _, place in found])
    counts = torch.tensor([len(token) for token, _ in found])
    return x[tokens], tokens * topk_ids.shape[1] + places, counts


@alternate
def counting_sort(x: Tensor, topk_ids: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """A list for each expert, into which the pairs are dealt."""
    hands: list[list[int]] = [[] for _ in range(num_experts)]
    for pair, expert in enumerate(topk_ids.flatten().tolist()):
        if expert in range(num_experts):
            hands[expert].append(pair)
    pairs = torch.tensor([pair for hand in hands for pair in hand], dtype=torch.int32)
    return x.index_select(0, pairs // topk_ids.shape[1]), pairs, torch.tensor([len(hand) for hand in hands]).int()


@alternate
def sorts_what_is_there(x: Tensor, topk_ids: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Picks the pairs that are there first; the latest of an expert's pairs comes first."""
    tokens, places = ((topk_ids > -1) & (topk_ids < num_experts)).nonzero(as_tuple=True)
    experts = topk_ids[tokens, places]
    order = (-experts).argsort(stable=True).flip(0)
    counts = torch.stack([(experts == expert).sum() for expert in range(num_experts)])
    return x[tokens[order]], (tokens * topk_ids.shape[1] + places)[order], counts
