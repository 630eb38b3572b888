"""Other right ways to `merge_attention_states`."""

import torch
from torch import Tensor

from grader.mutants import alternate


@alternate
def moves_a_toward_b(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """The share of b is a sigmoid of the difference: the output of a moves toward that of b by it."""
    share_b = torch.sigmoid(lse_b - lse_a).unsqueeze(-1)  # NaN where both are empty
    a_is_empty, b_is_empty = lse_a.isneginf().unsqueeze(-1), lse_b.isneginf().unsqueeze(-1)
    out = torch.where(b_is_empty, out_a, torch.where(a_is_empty, out_b, out_a + share_b * (out_b - out_a)))
    return torch.where(a_is_empty & b_is_empty, 0.0, out), torch.logaddexp(lse_a, lse_b)


@alternate
def softmax_over_the_sets(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over two positions whose scores are the log-sum-exps."""
    lses = torch.stack([lse_a, lse_b], -1)
    outs = torch.stack([out_a, out_b], -2).masked_fill(lses.isneginf().unsqueeze(-1), 0.0)
    weights = lses.softmax(-1).nan_to_num(0.0)
    return (weights.unsqueeze(-2) @ outs).squeeze(-2), lses.logsumexp(-1)
