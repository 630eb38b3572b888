"""Tiny random models for the engine's tests, and the dense oracle's answers for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tinyllm.config import EngineConfig, ModelConfig
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.llm import LLM
from tinyllm.kv_cache.dense import DenseKVCache
from tinyllm.model.ops import LayerOps
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.parts import Parts, resolve

VOCAB = 97


class NumberTokenizer:
    """Writes each token id as a number, so that a test needs no trained tokenizer."""

    def encode(self, text: str) -> list[int]:
        """The numbers in a text."""
        return [int(word) for word in text.split()]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The token ids, with a blank between them."""
        return " ".join(map(str, token_ids))


def tiny_model(
    gqa_ratio: int = 2, seed: int = 0, eos_token_ids: tuple[int, ...] = (), num_experts: int = 0
) -> Qwen3ForCausalLM:
    """A random two-layer model whose attention is peaked enough that a wrong K or V changes its answer.

    With experts both layers are sparse, and two work on a token.
    """
    torch.manual_seed(seed)
    config = ModelConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=2 * gqa_ratio,
        num_kv_heads=2,
        head_dim=16,
        eos_token_ids=eos_token_ids,
        rope_theta=10_000.0,
        num_experts=num_experts,
        num_experts_per_tok=2 if num_experts else 0,
        moe_intermediate_size=24 if num_experts else 0,
    )
    model = Qwen3ForCausalLM(config)
    for name, weight in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model.requires_grad_(False).eval()


def make_engine(model: Qwen3ForCausalLM, parts: Parts | None = None, **options: object) -> LLMEngine:
    """An engine over a tiny model."""
    config = EngineConfig.from_options(**{"block_size": 4, "num_blocks": 256, **options})
    return LLMEngine(model, NumberTokenizer(), config, parts or resolve())  # type: ignore[arg-type]


def make_llm(model: Qwen3ForCausalLM, **options: object) -> LLM:
    """An `LLM` over a tiny model, without a checkpoint folder."""
    llm = LLM.__new__(LLM)
    llm.model, llm.engine = model, make_engine(model, **options)
    llm.tokenizer = llm.engine.tokenizer
    return llm


def drain(engine: LLMEngine) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Step until all is finished: the output tokens of each request's continuations, by request."""
    outputs = {}
    while engine.has_unfinished:
        for output in engine.step():
            outputs[output.request_id] = tuple(o.token_ids for o in output.outputs)
    return outputs


def assert_no_block_lost(engine: LLMEngine) -> None:
    """With every request gone only the prefix cache may own blocks, and all of them can be evicted."""
    assert not engine.kv.tables
    if engine.kv.prefix_cache:
        engine.kv.prefix_cache.evict(engine.kv.num_blocks)
    assert engine.kv.num_free == engine.kv.num_blocks


def dense_logits(model: Qwen3ForCausalLM, token_ids: Sequence[int]) -> Tensor:
    """[T, V]: the logits after every token, from the dense cache in one shot."""
    step = DenseKVCache(model.config, 1, max_len=len(token_ids)).step([len(token_ids)])
    return model.compute_logits(model(torch.tensor(token_ids), step.positions, LayerOps(step)))


def dense_greedy(model: Qwen3ForCausalLM, prompt: Sequence[int], num_tokens: int) -> tuple[list[int], float]:
    """Greedy continuation with the dense cache, and the smallest gap between the two best logits on the way."""
    tokens, gap = list(prompt), float("inf")
    for _ in range(num_tokens):
        best = dense_logits(model, tokens)[-1].topk(2)
        gap = min(gap, float(best.values[0] - best.values[1]))
        tokens.append(int(best.indices[0]))
    return tokens[len(prompt) :], gap
