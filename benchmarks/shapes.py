"""Shapes of models that do not ship, for what is measured or worked out at their size."""

from __future__ import annotations

from tinyllm.config import ModelConfig

#: Qwen/Qwen3-0.6B, from its config.json on Hugging Face.
QWEN3_0_6B = ModelConfig(
    vocab_size=151_936,
    hidden_size=1024,
    intermediate_size=3072,
    num_layers=28,
    num_heads=16,
    num_kv_heads=8,
    head_dim=128,
    max_position_embeddings=40_960,
    dtype="bfloat16",
)
