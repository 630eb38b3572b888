"""The models that the book counts bytes for."""

from __future__ import annotations

from benchmarks.shapes import QWEN3_0_6B
from tinyllm.config import ModelConfig
from tinyllm.paths import shipped_checkpoint

TARGET = ModelConfig.from_pretrained(shipped_checkpoint())

#: Name, config, bytes of one element.
MODELS = (("Qwen3-0.6B, bfloat16", QWEN3_0_6B, 2), ("the target that ships, float32", TARGET, 4))
