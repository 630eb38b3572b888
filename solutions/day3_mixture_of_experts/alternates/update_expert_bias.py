"""Other right ways to `update_expert_bias`."""

import torch
from torch import Tensor

from grader.mutants import alternate


@alternate
def counts_ups_and_downs(expert_bias: Tensor, counts: Tensor, update_rate: float) -> Tensor:
    """Takes the drift out first, which is how many go up and how many down, then moves the ones and the others."""
    below, above = counts * len(counts) < counts.sum(), counts * len(counts) > counts.sum()
    moved = expert_bias - update_rate * (below.sum() - above.sum()) / len(counts)
    moved[below] += update_rate
    moved[above] -= update_rate
    return moved


@alternate
def one_expert_after_another(expert_bias: Tensor, counts: Tensor, update_rate: float) -> Tensor:
    """Plain numbers, each load compared as a multiple of the mean."""
    loads = counts.tolist()
    steps = []
    for load in loads:
        over = load * len(loads) - sum(loads)
        steps.append(update_rate * ((over < 0) - (over > 0)))
    drift = sum(steps) / len(steps)
    return expert_bias + torch.tensor([step - drift for step in steps], dtype=expert_bias.dtype)
