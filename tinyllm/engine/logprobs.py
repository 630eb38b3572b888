"""Log-probabilities of chosen and likeliest tokens, as the model gave them: before temperature, filters and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """How likely one output token was.

    Attributes:
        token_id: the token that was chosen.
        logprob: its log-probability.
        rank: 1 for the likeliest token; one more for every token that is strictly likelier.
        top: the likeliest tokens and their log-probabilities, likeliest first.
    """

    token_id: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]


def token_logprobs(logits: Tensor, token_ids: Sequence[int], num_top: Sequence[int]) -> list[TokenLogprobs]:
    """One report for each row.

    Args:
        logits: [n, V] float32, unmodified.
        token_ids: the token chosen from each row.
        num_top: how many of the likeliest tokens to report for each row, at most V.
    """
    logprobs = logits.float().log_softmax(dim=1)
    chosen = logprobs.gather(1, torch.tensor(token_ids, device=logits.device)[:, None])
    ranks = (logprobs > chosen).sum(dim=1) + 1
    # A sort, not topk: the order of equal tokens must not depend on what the other rows ask for.
    top, top_ids = (part[:, : max(num_top)].tolist() for part in logprobs.sort(dim=1, descending=True, stable=True))
    return [
        TokenLogprobs(token_id, logprob, rank, tuple(zip(ids[:count], values[:count], strict=True)))
        for token_id, logprob, rank, ids, values, count in zip(
            token_ids, chosen[:, 0].tolist(), ranks.tolist(), top_ids, top, num_top, strict=True
        )
    ]
