"""Prints, as JSON, what a tiny engine answers on each attention backend. Run with Triton's interpreter on."""

from __future__ import annotations

import json
from typing import Any

import torch
from support.models import NumberTokenizer, drain, tiny_model

from tinyllm.config import EngineConfig, SamplingParams
from tinyllm.engine.attention import AttentionBackend
from tinyllm.engine.attention_triton import TritonAttention, attention_backend
from tinyllm.engine.engine import LLMEngine
from tinyllm.parts import resolve


def answer(backend: AttentionBackend) -> dict[str, Any]:
    """Serve a few requests in a pool that is too small for them, with prompts cut into chunks."""
    config = EngineConfig(block_size=3, num_blocks=14, max_num_batched_tokens=8)
    engine = LLMEngine(tiny_model(gqa_ratio=3), NumberTokenizer(), config, resolve(), backend=backend)  # type: ignore[arg-type]
    for i, length in enumerate((1, 19, 6)):
        engine.add_request(list(range(i, i + length)), SamplingParams(max_tokens=8), str(i))
    tokens = drain(engine)
    steps = engine.step_records
    return {
        "tokens": tokens,
        "mixed_steps": sum(step.num_prefill_tokens > 0 and step.num_decode_tokens > 0 for step in steps),
        "preempted": sum(step.num_preempted for step in steps),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    backends = {
        "torch": attention_backend("auto", "cpu"),
        "triton": attention_backend("triton", "cpu"),
        "triton in splits": TritonAttention(split_size=1),
    }
    print(json.dumps({name: answer(backend) for name, backend in backends.items()}))
