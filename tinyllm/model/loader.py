"""Reads and writes the weights of a checkpoint in Hugging Face format (safetensors, one file or several shards)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tinyllm.config import ModelConfig
from tinyllm.errors import OptionError
from tinyllm.model.expert_layouts import Layout, place_of
from tinyllm.model.moe import Experts
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.model.shard import Sharding
from tinyllm.model.weight_files import WEIGHTS, WeightFiles
from tinyllm.model.weight_names import checkpoint_names, checkpoint_shapes

#: The dtypes that a model is run in, by name.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    folder: str | Path,
    dtype: str | torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    sharding: Sharding | None = None,
) -> Qwen3ForCausalLM:
    """Build the model a checkpoint folder describes and fill it with its weights, ready for inference.

    Weights are read one after another, and of each only what is needed.

    Args:
        folder: holds `config.json` and `model.safetensors`, or shards and `model.safetensors.index.json`.
        dtype: what the weights are converted to; see `resolve_dtype`.
        device: where they are put.
        sharding: which part of the model this process holds; all of it by default. What a layer of a part gives is a
            summand of what the layer gives, and `config` is that of the part (`Sharding.local_config`).

    Raises:
        CheckpointError: a file is missing or damaged, a tensor is missing, unknown or of the wrong shape,
            or the architecture is another.
        OptionError: the dtype or the device is unknown, torch sees no such device, or the model cannot be divided
            evenly.
    """
    check_device(device)
    folder = Path(folder)
    config = ModelConfig.from_pretrained(folder)
    dtype = resolve_dtype(dtype, config.dtype, device)
    sharding = sharding or Sharding()
    model = empty_model(config, sharding)
    with WeightFiles(folder) as files:
        files.check(config)
        parts = local_parts(config, sharding)
        state = {
            name: read_parameter(files, name, config, parts).view(weight.shape).to(device=device, dtype=dtype)
            for name, weight in model.state_dict().items()
        }
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


class NoInit(TorchFunctionMode):
    """Draws no weights for an embedding: on the meta device torch would import its compiler for it, for 2 s."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return kwargs["tensor"] if func is nn.init.normal_ else func(*args, **kwargs)


def empty_model(config: ModelConfig, sharding: Sharding) -> Qwen3ForCausalLM:
    """The part of a model that `sharding` names, on the meta device: shapes only, no memory is taken."""
    local = sharding.local_config(config)
    num_experts = sharding.num_local_experts(config)
    with torch.device("meta"), NoInit():
        model = Qwen3ForCausalLM(local)
        if num_experts != config.num_experts:
            for layer in config.sparse_layers:
                mlp = model.get_submodule(f"layers.{layer}.mlp")
                mlp.experts = Experts(config.hidden_size, local.moe_intermediate_size, num_experts)
    return model


def local_parts(config: ModelConfig, sharding: Sharding) -> dict[str, tuple[slice, ...]]:
    """Of every tensor that is on this process, by its name in `checkpoint_shapes`, the part that is."""
    parts = {name: sharding.part(name, shape, config) for name, shape in checkpoint_shapes(config).items()}
    return {name: part for name, part in parts.items() if part is not None}


def read_parameter(
    files: WeightFiles, name: str, config: ModelConfig, parts: Mapping[str, tuple[slice, ...]]
) -> Tensor:
    """A parameter, put together from those parts of the files' tensors that are on this process."""
    pieces = [piece for piece in checkpoint_names(name, config) if piece in parts]
    return torch.cat([files.read(piece, parts[piece]) for piece in pieces])


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

    Raises:
        CheckpointError: `transformers` has no such model.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = getattr(torch, model.config.dtype)
    tensors = {name: piece.to("cpu", dtype).contiguous() for name, piece in checkpoint_tensors(model).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.config.to_hf(), indent=2) + "\n", encoding="utf-8")


def checkpoint_tensors(model: Qwen3ForCausalLM) -> dict[str, Tensor]:
    """The weights under the names, and in the pieces, that a published checkpoint has: views of the model's own."""
    shapes = checkpoint_shapes(model.config)
    layout = Layout.QWEN if model.config.qk_norm else Layout.MIXTRAL
    tensors: dict[str, Tensor] = {}
    for name, weight in model.state_dict().items():
        parts = checkpoint_names(name, model.config)
        rows = [shapes[part][0] for part in parts]
        weight = weight.flatten(0, -2) if weight.dim() == 3 else weight  # a stack of matrices: one below the other
        tensors |= zip([place_of(part, layout).tensor for part in parts], weight.split(rows), strict=True)
    return tensors
