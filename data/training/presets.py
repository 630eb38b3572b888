"""How large each model is and how long it trains: on two CPU cores, or in one short command on a large GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from data.tokenizer import VOCAB_SIZE
from tinyllm.config import ModelConfig

MAX_LENGTH = 2048  # tokens of the longest sample, and max_position_embeddings


def config(hidden_size: int, intermediate_size: int, num_layers: int, num_heads: int, num_kv_heads: int) -> ModelConfig:
    """A Qwen3 shape; heads are 32 channels wide, and the head's matrix is the embedding's."""
    return ModelConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=32,
        rope_theta=10_000.0,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        eos_token_ids=(2, 0),  # <|im_end|> and <|endoftext|>, by their place in CONTROL_TOKENS
        dtype="bfloat16",
    )


@dataclass(frozen=True, slots=True)
class Preset:
    """A way to train all three models.

    Attributes:
        target: its shape when done; it trains with half of the layers first.
        draft: its shape.
        steps: optimizer steps of each model.
        shards, tokens_per_shard: the batch of a step.
        workers: processes that draw samples; 0 draws them in the training process.
    """

    target: ModelConfig
    draft: ModelConfig
    steps: dict[str, int]
    shards: int
    tokens_per_shard: int
    workers: int

    @property
    def half_target(self) -> ModelConfig:
        """The target's shape for the first half of its training."""
        return replace(self.target, num_layers=self.target.num_layers // 2)


PRESETS = {
    "cpu": Preset(
        target=config(128, 256, 14, 4, 2),
        draft=config(96, 256, 2, 4, 2),
        steps={"target": 4500, "draft": 1600, "moe": 300},
        shards=2,
        tokens_per_shard=3072,
        workers=0,
    ),
    "gpu": Preset(
        target=config(192, 512, 16, 6, 3),
        draft=config(128, 384, 2, 4, 2),
        steps={"target": 6000, "draft": 3000, "moe": 1500},
        shards=1,
        tokens_per_shard=98_304,
        workers=14,
    ),
}
