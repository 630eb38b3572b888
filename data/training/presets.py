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
        shards, pieces, tokens_per_piece: the batch of a step, as `Plan` has them.
        further_rate: of the peak learning rates, where a finished model is trained on: small batches, small steps.
        workers: processes that draw samples; 0 draws them in the training process.
        steps_per_chunk: samples of how many steps are drawn together.
    """

    target: ModelConfig
    draft: ModelConfig
    steps: dict[str, int]
    shards: int
    pieces: int
    tokens_per_piece: int
    further_rate: float
    workers: int
    steps_per_chunk: int

    @property
    def half_target(self) -> ModelConfig:
        """The target's shape for the first half of its training."""
        return replace(self.target, num_layers=self.target.num_layers // 2)


PRESETS = {
    "cpu": Preset(
        target=config(128, 256, 16, 4, 2),
        draft=config(96, 256, 2, 4, 2),
        steps={"target": 6500, "draft": 2500, "moe": 400},
        shards=2,
        pieces=1,
        tokens_per_piece=3072,
        further_rate=0.25,
        workers=0,
        steps_per_chunk=32,
    ),
    "gpu": Preset(
        target=config(160, 384, 20, 6, 2),
        draft=config(160, 384, 2, 6, 2),
        steps={"target": 5000, "draft": 3000, "moe": 1200},
        shards=1,
        pieces=4,
        tokens_per_piece=32_768,
        further_rate=0.5,
        workers=12,
        steps_per_chunk=4,
    ),
}
