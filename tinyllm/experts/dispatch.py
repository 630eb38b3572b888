"""Sort tokens by expert, and bring the answers back: what happens between the router and the experts' products.

A token and one of its experts are a pair; pair i is token i // K with its expert number i % K.
"""

from __future__ import annotations

from torch import Tensor

from tinyllm.experts.routing import count_known, known_experts


def permute(x: Tensor, topk_ids: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Copy every token once for each of its experts, and sort the copies by expert.

    Args:
        x: [T, H], the tokens.
        topk_ids: [T, K], the experts of each. A pair whose id is not one of 0..E-1 is left out: it was dropped, or
            its expert is elsewhere.
        num_experts: E.

    Returns:
        permuted: [n, H], the rows of expert 0, then those of expert 1, and so on; n is T * K less the pairs left out.
        pairs: [n], which pair each row is.
        counts: [E], how many rows each expert has.
    """
    top_k = topk_ids.shape[1]
    ids = known_experts(topk_ids, num_experts)
    counts = count_known(ids, num_experts)
    pairs = ids.argsort(stable=True)[: int(counts.sum())]
    return x[pairs // top_k], pairs, counts


def unpermute(expert_out: Tensor, pairs: Tensor, topk_weights: Tensor) -> Tensor:
    """Bring each answer back to its token and add up each token's answers, every one times its weight.

    The answers of a token are added in the order of its experts, so that the sum does not hang on who else was there.

    Args:
        expert_out: [n, H], the experts' answers to the rows of `permute`.
        pairs: [n], which pair each row is.
        topk_weights: [T, K].

    Returns:
        [T, H]: for each token the weighted sum; 0 for a token all of whose pairs were left out.
    """
    num_tokens, top_k = topk_weights.shape
    by_pair = expert_out.new_zeros(num_tokens * top_k, expert_out.shape[1])
    by_pair = by_pair.index_copy(0, pairs.long(), expert_out)
    return (by_pair.view(num_tokens, top_k, expert_out.shape[1]) * topk_weights[:, :, None]).sum(dim=1)
