"""Other right ways to `topk_router`."""

import torch
from torch import Tensor

from grader.mutants import alternate


@alternate
def sorts_the_logits(router_logits: Tensor, top_k: int, norm_topk_prob: bool) -> tuple[Tensor, Tensor]:
    """The order of the logits is that of the probabilities; the log-sum-exp is over all experts or over the K."""
    scores, ids = router_logits.float().sort(dim=-1, descending=True)
    chosen = scores[:, :top_k]
    total = torch.logsumexp(chosen if norm_topk_prob else scores, dim=-1)
    return torch.exp(chosen - total[:, None]).to(router_logits.dtype), ids[:, :top_k].int()


@alternate
def takes_the_best_k_times(router_logits: Tensor, top_k: int, norm_topk_prob: bool) -> tuple[Tensor, Tensor]:
    """One expert after the other; what was taken is replaced, so that a row of NaN gets another one each time."""
    scores = router_logits.float()
    exps = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    probs = exps / exps.sum(dim=-1, keepdim=True)
    left, chosen = probs, []
    for _ in range(top_k):
        chosen.append(left.argmax(dim=-1, keepdim=True))
        left = left.scatter(-1, chosen[-1], -1.0)
    ids = torch.cat(chosen, dim=-1)
    weights = probs.gather(-1, ids)
    total = weights.sum(dim=-1, keepdim=True) if norm_topk_prob else 1.0
    return (weights / total).to(router_logits.dtype), ids


@alternate
def one_token_after_the_other(router_logits: Tensor, top_k: int, norm_topk_prob: bool) -> tuple[Tensor, Tensor]:
    """A loop over tokens, in float64."""
    weights = torch.empty(len(router_logits), top_k, dtype=router_logits.dtype)
    ids = torch.empty(len(router_logits), top_k, dtype=torch.int64)
    for token, row in enumerate(router_logits.double()):
        probs = row.softmax(dim=0)
        best = sorted(range(len(probs)), key=probs.tolist().__getitem__, reverse=True)[:top_k]
        total = probs[best].sum() if norm_topk_prob else 1.0
        weights[token] = probs[best] / total
        ids[token] = torch.tensor(best)
    return weights, ids
