"""Reads and writes the weights of a checkpoint in Hugging Face format (safetensors, one file or several shards)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tinyllm.checkpoint.fields import QUANTIZED, TAKE_ANOTHER
from tinyllm.checkpoint.files import read_json
from tinyllm.config import ModelConfig
from tinyllm.errors import CheckpointError, OptionError
from tinyllm.model.qwen3 import Qwen3ForCausalLM

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
#: The dtypes that a model is run in, by name.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: How the tensors are called that quantized weights come with: GPTQ and AWQ, compressed tensors and FP8, bitsandbytes.
SCALES = ("qweight", "qzeros", "scales", "g_idx", "weight_packed", "weight_scale", "weight_scale_inv", "absmax")

# One matrix here, several in the file: their rows stand one below the other, in this order.
FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
# One stack of matrices here, one matrix an expert or two in the file, expert after expert.
STACKED = {
    "mlp.experts.gate_up_proj": ("mlp.experts.{}.gate_proj.weight", "mlp.experts.{}.up_proj.weight"),
    "mlp.experts.down_proj": ("mlp.experts.{}.down_proj.weight",),
}


def load_model(
    folder: str | Path, dtype: str | torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Qwen3ForCausalLM:
    """Build the model a checkpoint folder describes and fill it with its weights, ready for inference.

    Args:
        folder: holds `config.json` and `model.safetensors`, or shards and `model.safetensors.index.json`.
        dtype: what the weights are converted to; see `resolve_dtype`.
        device: where they are put.

    Raises:
        CheckpointError: a file is missing or damaged, a tensor is missing, unknown or of the wrong shape,
            or the architecture is another.
        OptionError: the dtype or the device is unknown, or torch sees no such device.
    """
    check_device(device)
    folder = Path(folder)
    config = ModelConfig.from_pretrained(folder)
    dtype = resolve_dtype(dtype, config.dtype, device)
    tensors = read_tensors(folder)
    check_tensors(tensors, config, folder)
    with torch.device("meta"):  # shapes only: the weights below are the first memory that is taken
        model = Qwen3ForCausalLM(config)
    state = {
        name: torch.cat([tensors[part] for part in checkpoint_names(name, config)])
        .view(weight.shape)
        .to(device=device, dtype=dtype)
        for name, weight in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def resolve_dtype(dtype: str | torch.dtype, stored: str, device: str | torch.device) -> torch.dtype:
    """The dtype that weights, activations and the KV cache have.

    Args:
        dtype: "float32", "bfloat16", "float16", "auto", or torch's own. "auto" is what the weights are stored in on
            CUDA, and float32 elsewhere: most CPUs compute slowly in 16 bits.
        stored: the dtype that the checkpoint's config names.

    Raises:
        OptionError: the name is unknown, or "auto" leads to a dtype that no model is run in.
    """
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    names = ", ".join(f'"{name}"' for name in DTYPES)
    if dtype == "auto":
        chosen = stored if torch.device(device).type == "cuda" else "float32"
        if chosen not in DTYPES:
            raise OptionError(f"the weights are stored in {stored}, in which no model is run; give dtype {names}")
        return DTYPES[chosen]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise OptionError(f'the dtype is {dtype!r}; give "auto", {names}')
    return DTYPES[dtype]


def check_device(device: str | torch.device) -> None:
    """Check that a model can run on a device.

    Raises:
        OptionError: it is neither a CPU nor an NVIDIA GPU, or torch sees no such GPU.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        hint = '; an NVIDIA GPU is called "cuda"' if str(device).lower().startswith(("gpu", "nvidia")) else ""
        raise OptionError(f'the device is {device!r}; give "cpu", "cuda" or "cuda:0"{hint}')
    if found.type == "cuda" and not torch.cuda.is_available():
        raise OptionError(
            f"the device is {device}, but torch sees no NVIDIA GPU; `tinyllm doctor` says why. The CPU does all the "
            'same: device="cpu"'
        )
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"the device is {device}, but torch sees {torch.cuda.device_count()} GPUs, counted from 0")


def save_model(model: Qwen3ForCausalLM, folder: str | Path) -> None:
    """Write `config.json` and `model.safetensors` so that `load_model` and `transformers` read them.

    The weights are stored in the dtype that `model.config` names.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = getattr(torch, model.config.dtype)
    tensors = {name: piece.to("cpu", dtype).contiguous() for name, piece in checkpoint_tensors(model).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.config.to_hf(), indent=2) + "\n", encoding="utf-8")


def checkpoint_tensors(model: Qwen3ForCausalLM) -> dict[str, Tensor]:
    """The weights under the names, and in the pieces, that a checkpoint has: views of the model's own."""
    shapes = checkpoint_shapes(model.config)
    tensors: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        parts = checkpoint_names(name, model.config)
        rows = [shapes[part][0] for part in parts]
        weight = weight.flatten(0, -2) if weight.dim() == 3 else weight  # a stack of matrices: one below the other
        tensors |= zip(parts, weight.split(rows), strict=True)
    return tensors


def checkpoint_names(name: str, config: ModelConfig) -> list[str]:
    """The file's names of the tensors that make up the parameter `name`, top rows first."""
    prefix = "" if name.startswith("lm_head.") else "model."
    for fused, parts in FUSED.items():
        if fused in name:
            return [prefix + name.replace(fused, part) for part in parts]
    for stacked, parts in STACKED.items():
        if stacked in name:
            return [prefix + name.replace(stacked, part.format(e)) for e in range(config.num_experts) for part in parts]
    return [prefix + name]


def checkpoint_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint of this model holds. Matrices are [out, in]."""
    hidden, head_dim = config.hidden_size, config.head_dim
    q_size, kv_size = config.num_heads * head_dim, config.num_kv_heads * head_dim
    layer_shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (q_size, hidden),
        "self_attn.k_proj": (kv_size, hidden),
        "self_attn.v_proj": (kv_size, hidden),
        "self_attn.q_norm": (head_dim,),
        "self_attn.k_norm": (head_dim,),
        "self_attn.o_proj": (hidden, q_size),
        "post_attention_layernorm": (hidden,),
    }
    dense_shapes = mlp_shapes("mlp", hidden, config.intermediate_size)
    sparse_shapes: dict[str, tuple[int, ...]] = {"mlp.gate": (config.num_experts, hidden)}
    for e in range(config.num_experts):
        sparse_shapes |= mlp_shapes(f"mlp.experts.{e}", hidden, config.moe_intermediate_size)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    for layer in range(config.num_layers):
        names = layer_shapes | (sparse_shapes if layer in config.sparse_layers else dense_shapes)
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in names.items()}
    return shapes


def mlp_shapes(name: str, hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    """The matrices of one SwiGLU MLP, dense or an expert."""
    return {
        f"{name}.gate_proj": (inner, hidden),
        f"{name}.up_proj": (inner, hidden),
        f"{name}.down_proj": (hidden, inner),
    }


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor in the folder's safetensors file or shards.

    A whole file comes first, as in `transformers`: an index beside it may be left over from before it was merged.

    Raises:
        CheckpointError: there is no such file, the index names a missing one, or a file is damaged.
    """
    paths = [folder / WEIGHTS]
    if not paths[0].is_file() and (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map") or None
        if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
            raise CheckpointError(f"{folder / INDEX} has no weight_map; copy the checkpoint folder again")
        paths = [folder / shard for shard in sorted(set(weight_map.values()))]
    tensors: dict[str, Tensor] = {}
    for path in paths:
        if not path.is_file():
            raise CheckpointError(
                f"{path} is missing. Weights are read from {WEIGHTS}, or from the shards that {INDEX} names; "
                "download or copy the checkpoint folder again"
            )
        try:
            tensors |= load_file(path)
        except SafetensorError as error:
            raise CheckpointError(
                f"{path} is damaged or was cut short ({error}); "
                f"its size is {path.stat().st_size} bytes: compare it with the original and copy it again"
            ) from None
    return tensors


def check_tensors(tensors: Mapping[str, Tensor], config: ModelConfig, folder: Path) -> None:
    """Hold the tensors of a file against those its config promises.

    Raises:
        CheckpointError: some are missing, unknown, of another shape, or quantized; the first few are named.
    """
    check_not_quantized(tensors, folder)
    shapes = checkpoint_shapes(config)
    ignored = {"lm_head.weight"} if config.tie_word_embeddings else set()  # some files repeat the tied matrix
    problems = {
        "missing": sorted(shapes.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - shapes.keys() - ignored),
        "of the wrong shape": [
            f"{name} is {list(tensors[name].shape)} and should be {list(shape)}"
            for name, shape in shapes.items()
            if name in tensors and tuple(tensors[name].shape) != shape
        ],
    }
    found = [
        f"{len(names)} {problem}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for problem, names in problems.items()
        if names
    ]
    if found:
        raise CheckpointError(
            f"the weights in {folder} do not fit its config.json. Tensors {'; '.join(found)}. "
            "Check that both files belong to the same model"
        )


def check_not_quantized(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Raise CheckpointError for weights in fewer than 16 bits, and for the scales that such weights come with.

    The config of such a checkpoint says what it is, but not every tool that quantizes writes it there.
    """
    packed = [name for name, tensor in tensors.items() if not tensor.is_floating_point() or tensor.itemsize < 2]
    scales = [name for name in tensors if name.rsplit(".", 1)[-1] in SCALES]
    if packed or scales:
        name = (packed or scales)[0]
        dtype = str(tensors[name].dtype).removeprefix("torch.")
        raise CheckpointError(f"{QUANTIZED} (the weights in {folder} hold {name}, in {dtype}); {TAKE_ANOTHER}")
