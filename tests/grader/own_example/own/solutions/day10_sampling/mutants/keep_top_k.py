"""Mistakes that people make in keep_top_k."""

import torch

from grader.mutants import mutant


@mutant
def masks_with_zero(logits: torch.Tensor, k: int) -> torch.Tensor:
    """You set the others to 0, which is a likely logit as any: the softmax of 0 is not 0."""
    masked = torch.zeros_like(logits)
    best = torch.topk(logits, k).indices
    masked[best] = logits[best]
    return masked
