"""What a model is, how an engine is set up, how tokens are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyllm.checkpoint.end_tokens import end_token_ids
from tinyllm.checkpoint.fields import model_fields
from tinyllm.checkpoint.files import read_json
from tinyllm.checkpoint.written import hf_fields
from tinyllm.errors import CheckpointError, OptionError
from tinyllm.options import check_fields, nested
from tinyllm.sampling_params import SamplingParams

__all__ = ["CacheConfig", "EngineConfig", "ModelConfig", "ParallelConfig", "SamplingParams"]

#: What `EngineConfig.attention_backend` may be; "auto" is Triton on CUDA and torch elsewhere, "native" is C on the CPU.
ATTENTION_BACKENDS = ("auto", "torch", "triton", "native")
#: What `EngineConfig.experts_backend` may be; as above.
EXPERTS_BACKENDS = ATTENTION_BACKENDS


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a Qwen3 decoder, dense or with experts, or of a Mixtral, read from a Hugging Face `config.json`.

    Attributes:
        intermediate_size: the width inside the MLP of a dense layer.
        num_layers: L, decoder layers.
        num_heads: Hq, query heads.
        num_kv_heads: Hkv, key/value heads; Hq / Hkv query heads share one of them (GQA).
        head_dim: D, which need not be hidden_size / num_heads.
        max_position_embeddings: the longest sequence, in tokens, that the model was made for.
        eos_token_ids: tokens that end a sequence.
        dtype: the dtype the weights are stored in, as Hugging Face writes it.
        qk_norm: queries and keys are normalized before RoPE: in Qwen3 they are, in Mixtral not.
        num_experts: E, experts in a sparse layer; 0 for a dense model.
        num_experts_per_tok: K, how many of them each token uses.
        moe_intermediate_size: the width inside one expert.
        norm_topk_prob: the weights of a token's K experts add up to 1.
        decoder_sparse_step: with s, the last of every s layers is sparse; 1 for all layers.
        mlp_only_layers: layers that are dense all the same.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    max_position_embeddings: int = 2048
    tie_word_embeddings: bool = True
    eos_token_ids: tuple[int, ...] = ()
    dtype: str = "float32"
    qk_norm: bool = True
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    norm_topk_prob: bool = True
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise CheckpointError(
                f"{self.num_heads} query heads cannot share {self.num_kv_heads} key/value heads evenly: "
                "num_attention_heads must be a multiple of num_key_value_heads"
            )
        if self.decoder_sparse_step < 1:
            raise CheckpointError(f"decoder_sparse_step is {self.decoder_sparse_step}; it must be at least 1")
        if self.num_experts and not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise CheckpointError(
                f"a token cannot use {self.num_experts_per_tok} of {self.num_experts} experts: "
                "num_experts_per_tok must be from 1 to num_experts"
            )

    @property
    def gqa_ratio(self) -> int:
        """Query heads per key/value head, Hq / Hkv."""
        return self.num_heads // self.num_kv_heads

    @property
    def sparse_layers(self) -> tuple[int, ...]:
        """The layers that have experts in place of one MLP."""
        step = self.decoder_sparse_step
        every = range(step - 1, self.num_layers, step) if self.num_experts else range(0)
        return tuple(layer for layer in every if layer not in self.mlp_only_layers)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ModelConfig:
        """Read `config.json` from a checkpoint folder, and the end tokens from wherever the folder names them.

        Raises:
            CheckpointError: the folder or file is missing, is no JSON, or describes a model that is not supported.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise CheckpointError(
                f"no checkpoint folder at {folder}. Give a folder in Hugging Face format "
                "(config.json, model.safetensors, tokenizer.json); `tinyllm doctor` shows those that ship."
            )
        path = folder / "config.json"
        raw = read_json(path)
        try:
            config = cls.from_hf(raw)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        return replace(config, eos_token_ids=end_token_ids(folder))

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> ModelConfig:
        """Build from the parsed `config.json`, refusing what this package does not compute.

        Raises:
            CheckpointError: another architecture, a field that is missing or makes no sense, or a feature that would be
                ignored.
        """
        return cls(**model_fields(raw))

    def to_hf(self) -> dict[str, Any]:
        """The `config.json` that `transformers` reads for this model.

        Raises:
            CheckpointError: `transformers` has no such model.
        """
        return hf_fields(self)


def check_backend(what: str, name: str, known: Sequence[str]) -> None:
    """Check the name of a backend, of which there are several.

    Raises:
        OptionError: it is none of those that are known.
    """
    if name not in known:
        *most, last = (f'"{one}"' for one in known)
        raise OptionError(f"the {what} backend is {name!r}; give {', '.join(most)} or {last}")


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """The KV pool.

    Attributes:
        block_size: P, tokens in one KV block.
        num_blocks: N, blocks in the pool. One block of `max_model_len` tokens per request is contiguous reservation.
        enable_prefix_caching: reuse the KV blocks of prompts that begin alike.

    Raises:
        OptionError: a value is out of range or of the wrong type.
    """

    block_size: int = 16
    num_blocks: int = 1024
    enable_prefix_caching: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def num_slots(self) -> int:
        """Tokens whose K and V fit in the pool."""
        return self.num_blocks * self.block_size


@dataclass(frozen=True, slots=True)
class ParallelConfig:
    """How many processes share a model; torchrun starts them. See `tinyllm.model.shard` for who holds what.

    Attributes:
        tensor_parallel_size: processes that each hold a part of every matrix of a layer, and a part of the KV heads.
        expert_parallel_size: processes that each hold some experts of a sparse layer whole. With `tensor_parallel_size`
            1 all else is on each of them; with the same number, attention is in parts and experts are whole.
        distributed_timeout_seconds: how long an exchange may wait for the slowest process.

    Raises:
        OptionError: a value is out of range or of the wrong type, or the two sizes are different numbers above 1.
    """

    tensor_parallel_size: int = 1
    expert_parallel_size: int = 1
    distributed_timeout_seconds: int = 30

    def __post_init__(self) -> None:
        check_fields(self)
        sizes = {self.tensor_parallel_size, self.expert_parallel_size} - {1}
        if len(sizes) > 1:
            raise OptionError(
                f"tensor_parallel_size is {self.tensor_parallel_size} and expert_parallel_size is "
                f"{self.expert_parallel_size}; give the same number, or leave one of them at 1"
            )

    @property
    def world_size(self) -> int:
        """W, how many processes there are."""
        return max(self.tensor_parallel_size, self.expert_parallel_size)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How much memory the engine owns and how much work one step may do.

    Attributes:
        cache: the KV pool.
        max_num_batched_tokens: the token budget of a step.
        max_num_seqs: most requests running at once.
        max_model_len: longest prompt plus output of one request, in tokens; None takes the model's own limit.
        attention_backend: one of `ATTENTION_BACKENDS`; see `tinyllm.attention.registry.attention_backend`.
        experts_backend: one of `EXPERTS_BACKENDS`; see `tinyllm.experts.backends.experts_backend`.
        enforce_eager: launch every kernel of every step from Python, and replay no CUDA graphs.
        record_experts: write into each step's record how it loads the experts (`StepRecord.experts`). A model that has
            some then replays no CUDA graphs, and each step waits for the GPU once more.
        parallel: the processes that share the model.

    Raises:
        OptionError: a value is out of range, unknown, or of the wrong type.
    """

    cache: CacheConfig = CacheConfig()
    max_num_batched_tokens: int = 512
    max_num_seqs: int = 256
    max_model_len: int | None = None
    attention_backend: str = "auto"
    experts_backend: str = "auto"
    enforce_eager: bool = False
    record_experts: bool = False
    parallel: ParallelConfig = ParallelConfig()

    def __post_init__(self) -> None:
        check_fields(self)
        check_backend("attention", self.attention_backend, ATTENTION_BACKENDS)
        check_backend("experts", self.experts_backend, EXPERTS_BACKENDS)

    @classmethod
    def from_options(cls, **options: Any) -> EngineConfig:
        """A config from options by their names alone, wherever they are: `from_options(num_blocks=64)`.

        Raises:
            UnknownOptionError: there is no such option; the nearest is named.
            OptionError: a value is out of range, unknown, or of the wrong type.
        """
        return nested(cls, options)
