"""A Hugging Face `config.json` of Qwen3, dense or with experts, or of Mixtral, as the fields of `ModelConfig`.

A field that is not in the file means what it means to `transformers`, and that depends on the class: without `head_dim`
a dense Qwen3 has heads of 128, whereas the two with experts divide `hidden_size` by the heads. Sizes that every
published file names have no default here. A field with another type, and null where it has no meaning, is refused by
its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyllm.checkpoint.end_tokens import as_token_ids
from tinyllm.checkpoint.rope import DEFAULT_THETA, rope_theta
from tinyllm.errors import CheckpointError

DENSE, SPARSE, MIXTRAL = SUPPORTED_ARCHITECTURES = ("Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "MixtralForCausalLM")
MODEL_TYPES = {"qwen3": DENSE, "qwen3_moe": SPARSE, "mixtral": MIXTRAL}
QUANTIZED = "quantized weights are not supported"
TAKE_ANOTHER = "take the checkpoint of this model in bfloat16, float16 or float32"
REQUIRED = object()  # the default of a field that a file must name


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the class of `transformers` takes for fields that a file does not name.

    Attributes:
        head_dim: None divides `hidden_size` by the heads.
        nullable: fields in which null is allowed; it means as many KV heads as query heads, and to divide.
    """

    num_key_value_heads: int
    head_dim: int | None = None
    rms_norm_eps: float = 1e-6
    rope_theta: float = DEFAULT_THETA
    max_position_embeddings: int = 32_768
    nullable: tuple[str, ...] = ()


DEFAULTS = {
    DENSE: Defaults(32, head_dim=128, nullable=("num_key_value_heads",)),
    SPARSE: Defaults(4),
    MIXTRAL: Defaults(8, None, 1e-5, 1e6, 131_072, nullable=("head_dim",)),
}


def model_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `ModelConfig` for a parsed `config.json`.

    Raises:
        CheckpointError: another architecture, a field that is missing or makes no sense, or a feature that would be
            ignored.
    """
    kind = architecture(raw)
    defaults = DEFAULTS[kind]
    refuse_unsupported(raw)
    hidden_size, num_heads = whole(raw, "hidden_size"), whole(raw, "num_attention_heads")
    num_layers = whole(raw, "num_hidden_layers")
    check_layer_types(raw.get("layer_types"), num_layers)

    def nullable(name: str, default: int, null: int) -> int:
        is_null = name in defaults.nullable and name in raw and raw[name] is None
        return null if is_null else whole(raw, name, default)

    num_kv_heads = nullable("num_key_value_heads", defaults.num_key_value_heads, num_heads)
    share = hidden_size // num_heads
    head_dim = nullable("head_dim", defaults.head_dim or share, share)
    if head_dim % 2:
        raise CheckpointError(f"head_dim is {head_dim}; RoPE turns pairs of channels, so it must be even")
    return {
        "vocab_size": whole(raw, "vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": whole(raw, "intermediate_size"),
        "num_layers": num_layers,
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": number(raw, "rms_norm_eps", defaults.rms_norm_eps),
        "rope_theta": rope_theta(raw, defaults.rope_theta),
        "max_position_embeddings": whole(raw, "max_position_embeddings", defaults.max_position_embeddings),
        "tie_word_embeddings": flag(raw, "tie_word_embeddings", False),
        "eos_token_ids": as_token_ids(raw.get("eos_token_id")),
        "dtype": str(raw.get("dtype") or raw.get("torch_dtype") or "float32"),
        "qk_norm": kind != MIXTRAL,
        **({} if kind == DENSE else mixtral_fields(raw) if kind == MIXTRAL else expert_fields(raw)),
    }


def num_experts(raw: Mapping[str, Any], least: int) -> int:
    """The number of experts, which has two names: published Qwen3-MoE configs and transformers 5 differ.

    Raises:
        CheckpointError: there is none, it makes no sense, or both are there and differ.
    """
    names = [name for name in ("num_local_experts", "num_experts") if name in raw] or ["num_experts"]
    counts = [whole(raw, name, least=least) for name in names]
    if counts[0] != counts[-1]:
        raise CheckpointError(
            f"num_local_experts is {counts[0]} and num_experts {counts[1]}: they are two names of one number; "
            "remove the wrong one"
        )
    return counts[0]


def mixtral_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `ModelConfig` in which a Mixtral differs: every layer is sparse, and weights are renormalized.

    Raises:
        CheckpointError: the config asks for a sliding window.
    """
    if raw.get("sliding_window") is not None:
        raise CheckpointError(
            f"the config asks for sliding-window attention (sliding_window is {raw['sliding_window']!r}), "
            "which is not supported here"
        )
    return {
        "num_experts": num_experts(raw, least=1),
        "num_experts_per_tok": whole(raw, "num_experts_per_tok"),
        "moe_intermediate_size": whole(raw, "intermediate_size"),
        "norm_topk_prob": True,
    }


def expert_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `ModelConfig` that only a Qwen3-MoE config has."""
    dense = raw.get("mlp_only_layers") or []
    if not isinstance(dense, list) or not all(type(layer) is int for layer in dense):
        raise CheckpointError(f"mlp_only_layers is {dense!r}; expected a list of layers, or null")
    return {
        "num_experts": num_experts(raw, least=0),
        "num_experts_per_tok": whole(raw, "num_experts_per_tok", least=0),
        "moe_intermediate_size": whole(raw, "moe_intermediate_size"),
        "norm_topk_prob": flag(raw, "norm_topk_prob", False),
        "decoder_sparse_step": whole(raw, "decoder_sparse_step", 1, least=0),
        "mlp_only_layers": tuple(dense),
    }


def architecture(raw: Mapping[str, Any]) -> str:
    """Which of `SUPPORTED_ARCHITECTURES` a config is of. A file without `architectures` is told by its `model_type`.

    Raises:
        CheckpointError: it is of none, or the two entries contradict each other.
    """
    by_type = MODEL_TYPES.get(str(raw.get("model_type")))
    named = raw.get("architectures") or ([by_type] if by_type else ["(none named)"])
    named = named if isinstance(named, list) else [named]
    supported = [name for name in named if name in SUPPORTED_ARCHITECTURES]
    if not supported:
        raise CheckpointError(
            f"architecture {named[0]} is not supported; this package runs {', '.join(SUPPORTED_ARCHITECTURES)}"
        )
    if raw.get("model_type") is not None and by_type not in supported:
        raise CheckpointError(
            f"architectures is {named} and model_type {raw['model_type']!r}: they contradict each other; "
            "copy the config.json of the model again"
        )
    return by_type or supported[0]


def refuse_unsupported(raw: Mapping[str, Any]) -> None:
    """Raise CheckpointError for settings that would change the result and that the model does not compute."""
    for name in ("quantization_config", "compression_config"):
        if (settings := raw.get(name)) is not None:
            method = settings.get("quant_method") if isinstance(settings, Mapping) else settings
            raise CheckpointError(f"{QUANTIZED} ({name} names the method {method!r}); {TAKE_ANOTHER}")
    activation = text(raw, "hidden_act", "silu")
    unsupported = {
        "attention_bias": flag(raw, "attention_bias", False),
        "sliding-window attention": flag(raw, "use_sliding_window", False),
        f"activation {activation!r}": activation != "silu",
        "settings by layer (per_layer_config)": bool(raw.get("per_layer_config")),
    }
    found = [name for name, present in unsupported.items() if present]
    if found:
        raise CheckpointError(f"the config asks for {', '.join(found)}, which is not supported here")


def check_layer_types(layer_types: Any, num_layers: int) -> None:
    """Raise CheckpointError unless every layer has full attention."""
    if layer_types is None:
        return
    if not isinstance(layer_types, list) or len(layer_types) != num_layers:
        raise CheckpointError(
            f"layer_types is {layer_types!r:.100}; expected a list of {num_layers}, one for each layer"
        )
    others = sorted({str(kind) for kind in layer_types} - {"full_attention"})
    if others:
        raise CheckpointError(
            f"layer_types asks for {', '.join(others)}, which is not supported: only full_attention is"
        )


def whole(raw: Mapping[str, Any], name: str, default: Any = REQUIRED, least: int = 1) -> int:
    """A field that is a whole number of at least `least`."""
    value = field(raw, name, default, f"a whole number from {least} up")
    if type(value) is not int or value < least:
        raise CheckpointError(f"{name} is {value!r}; expected a whole number from {least} up")
    return value


def number(raw: Mapping[str, Any], name: str, default: float) -> float:
    """A field that is a number above 0."""
    value = field(raw, name, default, "a number above 0")
    if type(value) not in (int, float) or not value > 0:
        raise CheckpointError(f"{name} is {value!r}; expected a number above 0")
    return float(value)


def flag(raw: Mapping[str, Any], name: str, default: bool) -> bool:
    """A field that is true or false."""
    value = field(raw, name, default, "true or false")
    if type(value) is not bool:
        raise CheckpointError(f"{name} is {value!r}; expected true or false")
    return value


def text(raw: Mapping[str, Any], name: str, default: str) -> str:
    """A field that is a string."""
    value = field(raw, name, default, "a string")
    if type(value) is not str:
        raise CheckpointError(f"{name} is {value!r}; expected a string")
    return value


def field(raw: Mapping[str, Any], name: str, default: Any, expected: str) -> Any:
    """The value of a field, or its default where the file does not name it; null is not the same as not named."""
    if name not in raw:
        if default is REQUIRED:
            raise CheckpointError(f"the config has no {name!r}; is it a complete Hugging Face config.json?")
        return default
    if raw[name] is None:
        otherwise = "" if default is REQUIRED else f", or leave it out ({str(default).lower()} is then taken)"
        raise CheckpointError(f"{name} is null; expected {expected}{otherwise}")
    return raw[name]
