"""Other right ways to `load_balancing_loss`."""

import torch
from torch import Tensor

from grader.mutants import alternate


@alternate
def counts_with_bincount(router_logits: Tensor, top_k: int) -> Tensor:
    """Exponentials by hand, and the pairs of each expert from the ids."""
    num_tokens, num_experts = router_logits.shape
    logits = router_logits.float()
    powers = torch.exp(logits - logits.max(dim=1, keepdim=True).values)
    probs = powers / powers.sum(dim=1, keepdim=True)
    topk_ids = router_logits.argsort(descending=True)[:, :top_k]
    pairs = torch.bincount(topk_ids.flatten(), minlength=num_experts)
    return num_experts / num_tokens**2 * (pairs * probs.sum(dim=0)).sum()


@alternate
def expert_by_expert(router_logits: Tensor, top_k: int) -> Tensor:
    """A column at a time: an expert serves the tokens that have it among their K."""
    ids = router_logits.topk(top_k).indices
    probs = torch.log_softmax(router_logits.float(), dim=1).exp()
    loss = torch.zeros(())
    for expert in range(router_logits.shape[1]):
        serves = (ids == expert).any(dim=1)
        loss = loss + serves.float().mean() * probs[:, expert].mean()
    return loss * router_logits.shape[1]


@alternate
def tokens_times_tokens(router_logits: Tensor, top_k: int) -> Tensor:
    """How likely each token would be to take the experts that each other token has taken."""
    probs = router_logits.softmax(1, dtype=torch.float32)
    chosen = torch.zeros_like(probs).scatter_add_(1, router_logits.topk(top_k).indices, torch.ones_like(probs))
    return probs.shape[1] * (chosen @ probs.T).mean()
