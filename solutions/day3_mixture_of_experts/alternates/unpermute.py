"""Other right ways to `unpermute`."""

import torch
from torch import Tensor

from grader.mutants import alternate


@alternate
def fetches_each_pair(expert_out: Tensor, pairs: Tensor, topk_weights: Tensor) -> Tensor:
    """The row of each pair, or one of zeros behind all the others; one expert of all tokens after the other."""
    num_tokens, top_k = topk_weights.shape
    rows = torch.full((num_tokens * top_k,), len(pairs))
    rows[pairs] = torch.arange(len(pairs))
    rows = rows.view(num_tokens, top_k)
    answers = torch.cat([expert_out, expert_out.new_zeros(1, expert_out.shape[1])])
    weights = topk_weights.where(rows < len(pairs), 0.0)
    total = expert_out.new_zeros(num_tokens, expert_out.shape[1])
    for k in range(top_k):
        total += answers[rows[:, k]] * weights[:, k, None]
    return total


@alternate
def adds_in_the_order_of_pairs(expert_out: Tensor, pairs: Tensor, topk_weights: Tensor) -> Tensor:
    """`index_add` in the order of the pairs, which is the same wherever the rows stood."""
    num_tokens, top_k = topk_weights.shape
    order = pairs.argsort()
    home = pairs[order]
    weighted = expert_out[order].float() * topk_weights.reshape(-1)[home].unsqueeze(1)
    total = torch.zeros(num_tokens, expert_out.shape[1]).index_add(0, home // top_k, weighted)
    return total.to(expert_out.dtype)


@alternate
def row_after_row(expert_out: Tensor, pairs: Tensor, topk_weights: Tensor) -> Tensor:
    """A loop over the pairs in their order."""
    total = torch.zeros(len(topk_weights), expert_out.shape[1], dtype=expert_out.dtype)
    row_of = {pair: row for row, pair in enumerate(pairs.tolist())}
    for pair in sorted(row_of):
        token, place = divmod(pair, topk_weights.shape[1])
        total[token] += expert_out[row_of[pair]] * topk_weights[token, place]
    return total
