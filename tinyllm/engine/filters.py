"""Filters between logits and draws. Each is a function of one batch, in which every row has its own setting.

All take logits [n, V] in float64, in which dividing by a tiny temperature overflows later than any real logit. They
mark what they drop with -inf. The likeliest token always stays. The order is that of `transformers`: temperature,
top-k, top-p, min-p.
"""

from __future__ import annotations

import torch
from torch import Tensor


def apply_temperature(logits: Tensor, temperature: Tensor) -> Tensor:
    """Divide by the temperature, [n, 1], above 0. The best logit becomes 0, so that no division can overflow to inf."""
    return (logits - logits.amax(dim=1, keepdim=True)).div_(temperature)


def keep_top_k_top_p(logits: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Keep the k likeliest tokens, then the smallest set of those whose probability reaches p; one sort serves both.

    Of equal logits the lower token id counts as likelier, so that exactly k tokens stay.

    Args:
        logits: [n, V] float64.
        top_k: [n, 1] int64, from 1 to V; V keeps all.
        top_p: [n, 1] float64, above 0; 1 keeps all.
    """
    values, token_ids = logits.sort(dim=1, descending=True, stable=True)
    dropped = torch.arange(logits.shape[1], device=logits.device) >= top_k
    probs = values.masked_fill(dropped, -torch.inf).softmax(dim=1)
    mass_before = probs.cumsum(dim=1) - probs  # 0 for the likeliest token, which therefore stays
    # Rounding may bring the sum to 1 before the last token: p = 1 must keep it all the same.
    dropped |= (mass_before >= top_p) & (top_p < 1)
    return logits.masked_fill(torch.zeros_like(dropped).scatter(1, token_ids, dropped), -torch.inf)


def keep_min_p(logits: Tensor, min_p: Tensor) -> Tensor:
    """Keep the tokens that are at least `min_p`, [n, 1] float64, times as likely as the likeliest; 0 keeps all."""
    threshold = logits.amax(dim=1, keepdim=True) + min_p.log()
    return logits.masked_fill(logits < threshold, -torch.inf)
