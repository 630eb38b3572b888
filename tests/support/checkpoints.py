"""Small random checkpoints, for the tests that read them from files."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tinyllm.config import ModelConfig
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.model.weight_files import WEIGHTS


def small_config(**changes: object) -> ModelConfig:
    """A config of odd sizes; head_dim is not hidden_size / num_heads."""
    sizes = {
        "vocab_size": 131,
        "hidden_size": 40,
        "intermediate_size": 56,
        "num_layers": 3,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 12,
        "rope_theta": 10_000.0,
        "eos_token_ids": (3, 5),
    }
    return ModelConfig(**{**sizes, **changes})  # type: ignore[arg-type]


def small_sparse_config(**changes: object) -> ModelConfig:
    """The same with 4 experts of which each token uses 2. transformers wants sizes that are multiples of 8 here."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    return small_config(**{**experts, **changes})


def small_mixtral_config(**changes: object) -> ModelConfig:
    """A small Mixtral: the same again without QK-norm, with experts in every layer and one width for all of them."""
    experts = {"qk_norm": False, "intermediate_size": 16, "rms_norm_eps": 1e-5}
    return small_sparse_config(**{**experts, **changes})


def random_model(config: ModelConfig, seed: int = 0) -> Qwen3ForCausalLM:
    """Random weights, large enough that attention is peaked and a wrong key or value shows."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
        else:
            torch.nn.init.normal_(weight, std=0.3)
    return model.requires_grad_(False).eval()


def pack_experts(model: Qwen3ForCausalLM, folder: Path) -> None:
    """Write the experts of a saved checkpoint anew as transformers 5 can, in two stacks a layer."""
    tensors = {
        name.replace(".block_sparse_moe.gate.", ".mlp.gate."): tensor
        for name, tensor in load_file(folder / WEIGHTS).items()
        if ".experts." not in name
    }
    stacks = {f"model.{name}": weight for name, weight in model.state_dict().items() if ".experts." in name}
    save_file(tensors | stacks, folder / WEIGHTS)
