"""Sort tokens by expert, and bring the answers back: what happens between the router and the experts' products.

A token and one of its experts are a pair; pair i is token i // K with its expert number i % K.
"""

from __future__ import annotations

from torch import Tensor


def permute(x: Tensor, topk_ids: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Copy every token once for each of its experts, and sort the copies by expert.

    Args:
        x: [T, H], the tokens.
        topk_ids: [T, K] int32 or int64, the experts of each. A pair whose id is not one of 0..E-1 is left out: it was
            dropped, or its expert is elsewhere.
        num_experts: E.

    Returns:
        permuted: [n, H], the rows of expert 0, then those of expert 1, and so on; n is T * K less the pairs left out.
        pairs: [n], which pair each row is.
        counts: [E], how many rows each expert has.
    """
    ids = topk_ids.flatten()
    ids = ids.where((ids >= 0) & (ids < num_experts), num_experts)  # left out: behind the last expert
    counts = ids.bincount(minlength=num_experts)[:num_experts]
    pairs = ids.argsort(stable=True)[: int(counts.sum())]
    return x[pairs // topk_ids.shape[1]], pairs, counts


def unpermute(expert_out: Tensor, pairs: Tensor, topk_weights: Tensor) -> Tensor:
    """Bring each answer back to its token and add up each token's answers, every one times its weight.

    The answers of a token are added in the order of its experts, so that the sum does not hang on who else was there.

    Args:
        expert_out: [n, H], the experts' answers to the rows of `permute`.
        pairs: [n] int32 or int64, which pair each row is.
        topk_weights: [T, K]; that of a pair which was left out may be anything.

    Returns:
        [T, H]: for each token the weighted sum; 0 for a token all of whose pairs were left out.
    """
    pairs = pairs.long()
    weighted = expert_out * topk_weights.flatten()[pairs, None]
    by_pair = weighted.new_zeros(topk_weights.numel(), expert_out.shape[1]).index_copy(0, pairs, weighted)
    return by_pair.view(*topk_weights.shape, expert_out.shape[1]).sum(dim=1)
