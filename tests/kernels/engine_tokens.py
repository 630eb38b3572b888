"""Prints, as JSON, what a tiny engine answers on each attention backend. Run with Triton's interpreter on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from support.models import NumberTokenizer, drain, tiny_model

from tinyllm.attention.base import AttentionBackend
from tinyllm.attention.triton import TritonAttention
from tinyllm.config import EngineConfig, SamplingParams
from tinyllm.engine.cuda_graphs import DecodeGraphs
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import ModelRunner
from tinyllm.engine.request import Request
from tinyllm.engine.speculation import Proposer
from tinyllm.parts import resolve


class Repeats(Proposer):
    """Guesses that the last token comes again."""

    max_draft_tokens = 2

    def propose(self, requests: Sequence[Request]) -> Sequence[list[int]]:
        return [[request.token_ids[-1]] * 2 for request in requests]


def answer(
    name: str = "auto", backend: AttentionBackend | None = None, padded: bool = False, drafting: bool = False
) -> dict[str, Any]:
    """Serve a few requests in a pool that is too small for them, with prompts cut into chunks.

    Args:
        name: the attention backend by name.
        backend: one of your own instead.
        padded: pad uniform steps to 4 sequences as for a CUDA graph, and compute them again each time.
        drafting: verify two drafts a request.
    """
    config = EngineConfig.from_options(block_size=3, num_blocks=14, max_num_batched_tokens=8, attention_backend=name)
    proposer = Repeats() if drafting else None
    engine = LLMEngine(tiny_model(gqa_ratio=3), NumberTokenizer(), config, resolve(), backend, proposer=proposer)  # type: ignore[arg-type]
    runner = engine.runner
    assert isinstance(runner, ModelRunner)
    if padded:
        runner.graphs = DecodeGraphs(
            runner.forward,
            runner.model.embed_tokens.weight,
            runner.block_size,
            max_batch=4,
            max_blocks=14,
            max_query_len=3,
            capture=lambda step: step,
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
        "triton, padded, with drafts": answer("triton", padded=True, drafting=True),
        "triton in splits, padded": answer(backend=TritonAttention(split_size=1), padded=True),
    }
    print(json.dumps(answers))
