"""From logits to tokens: greedy or drawn, with draws that no other request can disturb."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyllm.engine.filters import apply_temperature, keep_min_p, keep_top_k_top_p
from tinyllm.engine.gumbel import gumbel_argmax, noise_key
from tinyllm.engine.logits_processors import process_logits
from tinyllm.engine.logprobs import TokenLogprobs, token_logprobs
from tinyllm.engine.request import SamplingState
from tinyllm.errors import GenerationError
from tinyllm.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class Sampled:
    """A request's next token, and its log-probabilities where the request asks for them."""

    token_id: int
    logprobs: TokenLogprobs | None = None


def sample(logits: Tensor, requests: Sequence[SamplingState]) -> list[Sampled | GenerationError]:
    """One token for each row: the likeliest at temperature 0, else one drawn by the request's own seed.

    Args:
        logits: [n, V] float32.
        requests: the request of each row, or what it would be after some of its drafts.

    Returns:
        For each row its token, or the error that ends this request and no other.
    """
    processed, errors = process_rows(logits, requests)
    best, tokens = processed.max(dim=1)  # a NaN anywhere in a row is its maximum
    drawn = [row for row, request in enumerate(requests) if request.params.temperature > 0]
    if drawn:
        drawing = [requests[row] for row in drawn]
        filtered = filtered_logits(processed[drawn], [request.params for request in drawing])
        keys = [noise_key(r.params.seed or 0, r.index, r.num_output_tokens) for r in drawing]
        tokens[drawn] = gumbel_argmax(filtered, keys)
    for row in (~best.isfinite()).nonzero()[:, 0].tolist():
        errors.setdefault(row, unusable(logits[row]))
    token_ids = tokens.tolist()
    reported = [row for row, r in enumerate(requests) if r.params.logprobs is not None and row not in errors]
    logprobs: dict[int, TokenLogprobs] = {}
    if reported:
        num_top = [min(requests[row].params.logprobs or 0, logits.shape[1]) for row in reported]
        reports = token_logprobs(logits[reported], [token_ids[row] for row in reported], num_top)
        logprobs = dict(zip(reported, reports, strict=True))
    return [errors.get(row) or Sampled(token_id, logprobs.get(row)) for row, token_id in enumerate(token_ids)]


def process_rows(logits: Tensor, requests: Sequence[SamplingState]) -> tuple[Tensor, dict[int, GenerationError]]:
    """Apply the masks, biases and penalties of the requests that have any.

    Returns:
        [n, V] float32, and the rows whose own `allowed_tokens` failed.
    """
    errors: dict[int, GenerationError] = {}
    rows = [i for i, r in enumerate(requests) if r.params.changes_logits or r.num_output_tokens < r.params.min_tokens]
    if rows:
        logits = logits.clone()
    for row in rows:
        try:
            logits[row] = process_logits(logits[row], requests[row])
        except BaseException as error:  # the caller's own function may raise anything
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # Ctrl-C, and not of the function's making
            errors[row] = GenerationError(f"allowed_tokens failed: {type(error).__name__}: {error}")
    return logits, errors


def filtered_logits(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """What is left of the logits after temperature, top-k, top-p and min-p; the softmax of a row is what is drawn from.

    Args:
        logits: [n, V] float32.
        params: one for each row; temperature must be above 0.

    Returns:
        [n, V] float64; 0 at the likeliest token of each row, and -inf where filtered out.
    """

    def column(values: Sequence[float], dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=logits.device)[:, None]

    scaled = apply_temperature(logits.double(), column([p.temperature for p in params]))
    # Only rows that ask for it are sorted. Which path a row takes is its own affair, whatever the other rows ask for.
    sort = [row for row, p in enumerate(params) if p.top_k or p.top_p < 1]
    if sort:
        vocab_size = logits.shape[1]
        top_k = column([min(params[row].top_k or vocab_size, vocab_size) for row in sort], torch.int64)
        scaled[sort] = keep_top_k_top_p(scaled[sort], top_k, column([params[row].top_p for row in sort]))
    if any(p.min_p for p in params):
        scaled = keep_min_p(scaled, column([p.min_p for p in params]))
    return scaled


def unusable(logits: Tensor) -> GenerationError:
    """Why no token can be chosen from a row, given its logits as the model gave them."""
    if logits.max().isfinite():
        return GenerationError("no token is left: the request's mask, biases and penalties rule out all of them")
    return GenerationError("the logits hold NaN or infinity: attention or the model computed nonsense for this request")
