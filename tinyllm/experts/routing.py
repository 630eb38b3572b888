"""The router: which K of E experts each token is sent to, and how much each one's answer counts."""

from __future__ import annotations

import torch
from torch import Tensor


def topk_router(router_logits: Tensor, top_k: int, norm_topk_prob: bool) -> tuple[Tensor, Tensor]:
    """Choose the K likeliest experts of every token, as Qwen3-MoE and Mixtral do.

    The softmax is over all E experts and in float32, whatever the logits' dtype, and so is everything up to the
    weights. Qwen3-MoE divides a token's K probabilities by their sum where the config says so, Mixtral always does. A
    row of NaN gets K different experts and weights of NaN, and touches no other row.

    Args:
        router_logits: [T, E].
        top_k: K, experts a token, at most E.
        norm_topk_prob: let the K weights of a token add up to 1.

    Returns:
        topk_weights [T, K], in the dtype of the logits, largest first; and topk_ids [T, K], whose experts they are.
    """
    probs = router_logits.softmax(dim=-1, dtype=torch.float32)
    topk_weights, topk_ids = probs.topk(top_k, dim=-1)
    if norm_topk_prob:
        topk_weights = topk_weights / topk_weights.sum(dim=-1, keepdim=True)
    return topk_weights.to(router_logits.dtype), topk_ids


def biased_topk_router(
    router_logits: Tensor, top_k: int, norm_topk_prob: bool, expert_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """`topk_router` with a bias that evens out the load: it helps to choose, and never counts in a weight.

    Auxiliary-loss-free balancing (Wang et al., arXiv 2408.15664, section 3); `update_expert_bias` moves the bias.

    Args:
        expert_bias: [E], added to the probabilities where experts are chosen.

    Returns:
        As `topk_router`; the weights are in the order of the biased scores.
    """
    probs = router_logits.softmax(dim=-1, dtype=torch.float32)
    topk_ids = (probs + expert_bias).topk(top_k, dim=-1).indices
    topk_weights = probs.gather(-1, topk_ids)
    if norm_topk_prob:
        topk_weights = topk_weights / topk_weights.sum(dim=-1, keepdim=True)
    return topk_weights.to(router_logits.dtype), topk_ids


def known_experts(topk_ids: Tensor, num_experts: int) -> Tensor:
    """[T, K] chosen experts -> [T * K] int64, pair by pair, with E for every id that is not one of 0..E-1."""
    ids = topk_ids.flatten().long()
    return torch.where((ids >= 0) & (ids < num_experts), ids, num_experts)


def expert_counts(topk_ids: Tensor, num_experts: int) -> Tensor:
    """[T, K] chosen experts -> [E] int64: how many pairs each expert has. Ids outside of 0..E-1 count for none.

    Without a wait for the GPU: `torch.bincount` would look at the largest id first.
    """
    return count_known(known_experts(topk_ids, num_experts), num_experts)


def count_known(ids: Tensor, num_experts: int) -> Tensor:
    """`expert_counts` of what `known_experts` gave."""
    return ids.new_zeros(num_experts + 1).scatter_add_(0, ids, torch.ones_like(ids))[:num_experts]
