"""Other ways to serve the same requests, all with `transformers`; each returns every request's new tokens.

All are greedy and run past the end token to the length that the trace asks for, as our engine does in this study.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from tinyllm.config import EngineConfig
from tinyllm.traces import TraceRequest

Serve = Callable[[Sequence[TraceRequest]], list[list[int]]]

TRANSFORMERS_MISSING = "transformers is not installed (pip install transformers)"
PAD = 0


def load_rival(folder: Path, device: str) -> Any:
    """The checkpoint as a `transformers` model in float32 that stops at no token, or why there is none."""
    if find_spec("transformers") is None:
        return TRANSFORMERS_MISSING
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()  # type: ignore[arg-type]
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=PAD)
    return model


@torch.inference_mode()
def one_by_one(model: Any, trace: Sequence[TraceRequest]) -> list[list[int]]:
    """`generate` for one request after another."""
    return [output for request in trace for output in generate(model, [request])]


@torch.inference_mode()
def padded(model: Any, trace: Sequence[TraceRequest], batch_size: int) -> list[list[int]]:
    """`generate` for batches in order of arrival, padded on the left; each runs until its longest output is done."""
    batches = [trace[i : i + batch_size] for i in range(0, len(trace), batch_size)]
    return [output for batch in batches for output in generate(model, batch)]


def generate(model: Any, batch: Sequence[TraceRequest]) -> list[list[int]]:
    """One call of `generate`; what a request did not ask for is cut off."""
    prompt_len = max(len(request.prompt_token_ids) for request in batch)
    ids = [[PAD] * (prompt_len - len(request.prompt_token_ids)) + [*request.prompt_token_ids] for request in batch]
    mask = [[int(i >= prompt_len - len(request.prompt_token_ids)) for i in range(prompt_len)] for request in batch]
    tokens = model.generate(
        torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=max(request.output_len for request in batch),
    )[:, prompt_len:].tolist()
    return [row[: request.output_len] for row, request in zip(tokens, batch, strict=True)]


def continuous_batching(model: Any, trace: Sequence[TraceRequest], config: EngineConfig) -> list[list[int]]:
    """The continuous batching of `transformers`, with the pool and the token budget that our engine has.

    Raises:
        RuntimeError: it gave up on a request, or its thread ended.
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig

    settings = ContinuousBatchingConfig(
        page_size=config.cache.block_size,
        num_blocks=config.cache.num_blocks,
        max_batch_tokens=config.max_num_batched_tokens,
    )
    no_end = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=PAD)
    with model.continuous_batching_context_manager(no_end, continuous_batching_config=settings) as manager:
        numbers = {
            manager.add_request(list(request.prompt_token_ids), f"request-{i}", request.output_len): i
            for i, request in enumerate(trace)
        }
        outputs: dict[int, list[int]] = {}
        while len(outputs) < len(trace):
            result = manager.get_result(timeout=1)
            if result is None and not manager.is_running():
                raise RuntimeError("its thread ended before all requests were done")
            if result is not None and result.error is not None:
                raise RuntimeError(f"{result.request_id}: {result.error}")
            if result is not None and result.is_finished():
                outputs[numbers[result.request_id]] = list(result.generated_tokens)
    return [outputs[i] for i in range(len(trace))]
