"""What a step's new tokens make of a request: they become output until one of them ends it."""

from __future__ import annotations

from collections.abc import Sequence

from tinyllm.engine.request import FinishReason, Request
from tinyllm.engine.sampler import Sampled
from tinyllm.errors import GenerationError


def accept(
    request: Request, results: Sequence[Sampled | GenerationError], now: float, max_model_len: int
) -> list[Sampled]:
    """Append new tokens until one ends the request. What was drafted before is void.

    Args:
        results: the tokens in order; an error ends the request.
        now: seconds on the metrics' clock.
        max_model_len: the longest that prompt and output may be together, in tokens.

    Returns:
        Those that were appended.
    """
    accepted: list[Sampled] = []
    request.draft_token_ids = []
    for result in results:
        if isinstance(result, GenerationError):
            request.finish_reason, request.error = FinishReason.ERROR, str(result)
        else:
            append(request, result, now, max_model_len)
            accepted.append(result)
        if request.finish_reason is not None:
            break
    return accepted


def append(request: Request, sampled: Sampled, now: float, max_model_len: int) -> None:
    """Append a new token and decide whether the request ends with it."""
    request.token_ids.append(sampled.token_id)
    request.metrics.token_times.append(now)
    if sampled.logprobs:
        request.logprobs.append(sampled.logprobs)
    params = request.params
    if sampled.token_id in request.end_token_ids:
        request.finish_reason = FinishReason.STOP
        return
    if request.num_output_tokens >= params.max_tokens or len(request.token_ids) >= max_model_len:
        request.finish_reason = FinishReason.LENGTH
    request.text.push(sampled.token_id)
    if params.stop or request.on_delta:  # else one decode at the end is enough
        request.text.update(may_stop=request.num_output_tokens > params.min_tokens)
        if request.text.stopped:
            request.finish_reason = FinishReason.STOP


def finish_text(request: Request) -> None:
    """Complete the text; what was kept back of it may hold a stop string that comes before any other end."""
    ended = request.finish_reason is not FinishReason.ERROR
    request.text.finish(may_stop=ended and request.num_output_tokens > request.params.min_tokens)
    if request.text.stopped:
        request.finish_reason = FinishReason.STOP
