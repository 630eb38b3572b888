"""A model's config as `transformers` reads it: the other direction of `fields.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyllm.checkpoint.fields import DENSE, MIXTRAL, MODEL_TYPES, SPARSE
from tinyllm.errors import CheckpointError

if TYPE_CHECKING:
    from tinyllm.config import ModelConfig


def architecture_of(config: ModelConfig) -> str:
    """The class of `transformers` that computes what this model does.

    Raises:
        CheckpointError: there is none.
    """
    if config.qk_norm:
        return SPARSE if config.num_experts else DENSE
    as_mixtral = {
        "experts in every layer": len(config.sparse_layers) == config.num_layers,
        "norm_topk_prob": config.norm_topk_prob,
        "intermediate_size equal to moe_intermediate_size": config.intermediate_size == config.moe_intermediate_size,
    }
    absent = [name for name, there in as_mixtral.items() if not there]
    if absent:
        raise CheckpointError(
            f"a model without QK-norm is written as a {MIXTRAL}, which this one cannot be: it lacks {', '.join(absent)}"
        )
    return MIXTRAL


def hf_fields(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` that `transformers` reads for this model; raises as `architecture_of` does."""
    architecture = architecture_of(config)
    experts = {
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        "moe_intermediate_size": config.moe_intermediate_size,
        "norm_topk_prob": config.norm_topk_prob,
        "decoder_sparse_step": config.decoder_sparse_step,
        "mlp_only_layers": list(config.mlp_only_layers),
    }
    mixtral = {
        "sliding_window": None,
        "num_local_experts": config.num_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
    }
    own: dict[str, dict[str, Any]] = {
        DENSE: {"attention_bias": False},
        SPARSE: {"attention_bias": False, **experts},
        MIXTRAL: mixtral,
    }
    return {
        "architectures": [architecture],
        "model_type": next(name for name, of in MODEL_TYPES.items() if of == architecture),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
        "eos_token_id": list(config.eos_token_ids) or None,
        "dtype": config.dtype,
        **own[architecture],
    }
