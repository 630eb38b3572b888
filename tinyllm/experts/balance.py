"""Keep experts evenly loaded: a loss that pulls on the router, or a bias that needs no gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def load_balancing_loss(router_logits: Tensor, top_k: int) -> Tensor:
    """How unevenly one layer loads its experts: E * sum over them of share * mean probability.

    It is K at balance and E where all tokens choose alike with certainty. Only the probabilities carry a gradient:
    it takes probability from the experts that are chosen most (Switch Transformers, arXiv 2101.03961, equations 4-6).
    In training, compute it layer by layer; over the tokens of all layers together, two uneven layers can cancel out.

    Args:
        router_logits: [T, E], what the layer's `gate` gave.
        top_k: K, experts a token.

    Returns:
        [], one number in float32.
    """
    num_experts = router_logits.shape[-1]
    probs = router_logits.softmax(dim=-1, dtype=torch.float32)
    chosen = F.one_hot(probs.topk(top_k).indices, num_experts).sum(dim=1)  # [T, E], 1 at a token's experts
    share = chosen.float().mean(dim=0)
    return num_experts * (share * probs.mean(dim=0)).sum()


def update_expert_bias(expert_bias: Tensor, counts: Tensor, update_rate: float) -> Tensor:
    """Move each expert's bias a step: up where the expert has less than the mean load, down where it has more.

    Auxiliary-loss-free balancing (Wang et al., arXiv 2408.15664, algorithm 1): once a step, after the optimizer's, with
    the counts of all ranks and micro-batches together. The step's mean is taken out, so that the bias does not drift
    as a whole, which would change nothing.

    Args:
        expert_bias: [E], as `biased_topk_router` takes it.
        counts: [E] int64, pairs of each expert since the last update.
        update_rate: the size of a step; 0.001 in the paper, for probabilities.

    Returns:
        [E], the new bias.
    """
    # The sign of (mean - count) in whole numbers, which no rounding can change.
    step = (counts.sum() - len(counts) * counts).sign().to(expert_bias.dtype)
    return expert_bias + update_rate * (step - step.mean())


def max_violation(counts: Tensor) -> float:
    """MaxVio of the same paper: how far the busiest expert is over the mean load; 0 is balance, 1 twice the mean."""
    return (counts.max() / counts.double().mean() - 1).item()
