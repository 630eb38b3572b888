"""Prints, as JSON, what a tiny engine answers on each attention backend. Run with Triton's interpreter on."""

from __future__ import annotations

import json
from typing import Any

import torch
from support.models import NumberTokenizer, drain, tiny_model

from tinyllm.config import EngineConfig, SamplingParams
from tinyllm.engine.attention import AttentionBackend
from tinyllm.engine.attention_triton import TritonAttention
from tinyllm.engine.cuda_graphs import DecodeGraphs
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import ModelRunner
from tinyllm.parts import resolve


def answer(name: str = "auto", backend: AttentionBackend | None = None, padded: bool = False) -> dict[str, Any]:
    """Serve a few requests in a pool that is too small for them, with prompts cut into chunks.

    Args:
        name: the attention backend by name.
        backend: one of your own instead.
        padded: pad decode steps to 4 sequences as for a CUDA graph, and compute them again each time.
    """
    config = EngineConfig.from_options(block_size=3, num_blocks=14, max_num_batched_tokens=8, attention_backend=name)
    engine = LLMEngine(tiny_model(gqa_ratio=3), NumberTokenizer(), config, resolve(), backend=backend)  # type: ignore[arg-type]
    runner = engine.runner
    assert isinstance(runner, ModelRunner)
    if padded:
        runner.graphs = DecodeGraphs(
            runner.model, engine.kv, runner.backend, max_batch=4, max_blocks=14, capture=lambda step: step
        )
    for i, length in enumerate((1, 19, 6)):
        engine.add_request(list(range(i, i + length)), SamplingParams(max_tokens=8), str(i))
    tokens = drain(engine)
    steps = engine.step_records
    return {
        "tokens": tokens,
        "mixed_steps": sum(step.num_prefill_tokens > 0 and step.num_decode_tokens > 0 for step in steps),
        "preempted": sum(step.num_preempted for step in steps),
        "padded_sizes": runner.graphs.recorded_sizes if runner.graphs else [],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    answers = {
        "torch": answer("torch"),
        "triton": answer("triton"),
        "triton in splits": answer(backend=TritonAttention(split_size=1)),
        "triton, padded": answer("triton", padded=True),
        "triton in splits, padded": answer(backend=TritonAttention(split_size=1), padded=True),
    }
    print(json.dumps(answers))
