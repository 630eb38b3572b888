"""Requests outside an engine, for tests of what only looks at them."""

from __future__ import annotations

from collections.abc import Sequence

from tinyllm.engine.metrics import RequestMetrics
from tinyllm.engine.output_text import OutputText
from tinyllm.engine.request import Request
from tinyllm.sampling_params import SamplingParams


def make_request(
    params: SamplingParams | None = None,
    prompt: Sequence[int] = (0,),
    output: Sequence[int] = (),
    end_token_ids: Sequence[int] = (),
    index: int = 0,
) -> Request:
    """A request that has generated `output` so far."""
    return Request(
        request_id=f"request.{index}",
        group_id="request",
        index=index,
        token_ids=[*prompt, *output],
        num_prompt_tokens=len(prompt),
        params=params or SamplingParams(),
        metrics=RequestMetrics(arrival=0.0),
        text=OutputText(str),
        end_token_ids=frozenset(end_token_ids),
    )
