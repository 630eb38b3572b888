"""The models that the book counts bytes for."""

from __future__ import annotations

from tinyllm.config import ModelConfig
from tinyllm.paths import shipped_checkpoint

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
)
TARGET = ModelConfig.from_pretrained(shipped_checkpoint())

#: Name, config, bytes of one element.
MODELS = (("Qwen3-0.6B, bfloat16", QWEN3_0_6B, 2), ("the target that ships, float32", TARGET, 4))
