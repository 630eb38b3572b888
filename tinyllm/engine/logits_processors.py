"""What a request does to its own logits before a token is chosen: masks, biases and penalties.

Each is a function of one row of logits, [V] float32, and returns a new one. Few requests use them, so they run row by
row; what every sampled request uses (see `filters`) runs on the whole batch at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from tinyllm.engine.request import SamplingState


def process_logits(logits: Tensor, request: SamplingState) -> Tensor:
    """All that the request's parameters ask for, in vLLM's order: what is allowed, biases, penalties.

    Args:
        logits: [V] float32, the row that decides the request's next token.
    """
    params = request.params
    if params.allowed_tokens is not None:
        logits = keep_allowed(logits, params.allowed_tokens(tuple(request.output_token_ids)))
    if params.logit_bias:
        logits = add_bias(logits, params.logit_bias)
    if request.num_output_tokens < params.min_tokens:
        logits = ban(logits, request.end_token_ids)
    if params.repetition_penalty != 1:
        logits = penalize_repetition(logits, request.token_ids, params.repetition_penalty)
    if params.presence_penalty or params.frequency_penalty:
        output = request.output_token_ids
        logits = penalize_output(logits, output, params.presence_penalty, params.frequency_penalty)
    return logits


def keep_allowed(logits: Tensor, allowed: Tensor) -> Tensor:
    """Drop the tokens at which `allowed`, [V] bool, is False.

    Raises:
        ValueError: `allowed` is of another shape or dtype.
    """
    if not isinstance(allowed, Tensor) or allowed.shape != logits.shape or allowed.dtype != torch.bool:
        shown = f"{allowed.dtype} {list(allowed.shape)}" if isinstance(allowed, Tensor) else repr(allowed)
        raise ValueError(f"allowed_tokens returned {shown:.80}; it must return a bool tensor {list(logits.shape)}")
    return logits.masked_fill(~allowed.to(logits.device), -torch.inf)


def add_bias(logits: Tensor, bias: Mapping[int, float]) -> Tensor:
    """Add to the logits of the given token ids."""
    token_ids = torch.tensor(list(bias), device=logits.device)
    return logits.index_add(0, token_ids, torch.tensor(list(bias.values()), dtype=logits.dtype, device=logits.device))


def ban(logits: Tensor, token_ids: Iterable[int]) -> Tensor:
    """Drop the given tokens."""
    return logits.index_fill(0, torch.tensor(list(token_ids), dtype=torch.int64, device=logits.device), -torch.inf)


def penalize_repetition(logits: Tensor, token_ids: Sequence[int], penalty: float) -> Tensor:
    """Divide the positive logits of `token_ids` by the penalty and multiply the negative ones, once for each token."""
    seen = torch.tensor(token_ids, device=logits.device).unique()
    values = logits[seen]
    return logits.index_copy(0, seen, torch.where(values < 0, values * penalty, values / penalty))


def penalize_output(logits: Tensor, output: Sequence[int], presence: float, frequency: float) -> Tensor:
    """Take `presence` from the logit of each token in the output, and `frequency` once for every time it is there."""
    counts = torch.tensor(output, dtype=torch.int64, device=logits.device).bincount(minlength=len(logits))
    return logits - presence * (counts > 0) - frequency * counts
