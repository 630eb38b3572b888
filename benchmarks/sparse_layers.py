"""One sparse layer with random weights, ready to be computed in several ways: ours, and those of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from tinyllm.experts.backends import TorchExperts
from tinyllm.experts.base import ExpertsFunction
from tinyllm.experts.layer import (
    experts_grouped_mm,
    experts_loop,
    experts_native,
    experts_sorted,
    experts_torch,
    experts_triton,
)
from tinyllm.kernels.native import NativeUnavailable
from tinyllm.kernels.sparse_mlp import library
from tinyllm.model.moe import SparseMLP

Call = Callable[[Tensor], Tensor]

TRANSFORMERS_MISSING = "transformers is not installed (pip install 'transformers>=5,<6')"
#: Two answers agree when they differ by less than this share of the largest number.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


@dataclass(frozen=True, slots=True)
class Shape:
    """A sparse layer: E experts of H x I, of which a token uses K."""

    hidden: int
    inner: int
    num_experts: int
    top_k: int


#: Of `data/checkpoints/moe`.
SHIPPED = Shape(160, 384, 8, 2)
#: Of Qwen/Qwen3-30B-A3B, from its config.json on Hugging Face.
QWEN3_30B_A3B = Shape(2048, 768, 128, 8)


def random_layer(shape: Shape, device: str, dtype: torch.dtype, seed: int) -> SparseMLP:
    """Random weights of a size that keeps numbers as large as they come."""
    torch.manual_seed(seed)
    layer = SparseMLP(
        shape.hidden, shape.inner, num_experts=shape.num_experts, num_experts_per_tok=shape.top_k, norm_topk_prob=True
    )
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
    return layer.to(device, dtype).requires_grad_(False)


def our_ways(layer: SparseMLP, device: str) -> dict[str, Call]:
    """The layer in each of our ways; the engine takes "triton" on CUDA and "torch" elsewhere, "native" if asked."""
    functions: dict[str, ExpertsFunction] = {
        "loop": experts_loop,
        "sorted": experts_sorted,
        "grouped_mm": experts_grouped_mm,
        "torch": experts_torch,
        **({"triton": experts_triton} if device == "cuda" else {}),
        **({"native": experts_native} if takes_native(layer, device) else {}),
    }

    def way(function: ExpertsFunction) -> Call:
        experts = TorchExperts(run=function)
        return lambda x: layer(x, experts)

    return {name: way(function) for name, function in functions.items()}


def takes_native(layer: SparseMLP, device: str) -> bool:
    """Whether C computes the layer: float32 on a CPU, and a compiler is there."""
    if device != "cpu" or layer.gate.weight.dtype != torch.float32:
        return False
    try:
        library()
    except NativeUnavailable:
        return False
    return True


def their_ways(layer: SparseMLP, shape: Shape) -> dict[str, Call]:
    """The layer as transformers computes it, over the same weights."""
    if find_spec("transformers") is None:
        return {}
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

    def way(implementation: str) -> Call:
        config = Qwen3MoeConfig(
            hidden_size=shape.hidden,
            moe_intermediate_size=shape.inner,
            num_experts=shape.num_experts,
            num_experts_per_tok=shape.top_k,
            norm_topk_prob=True,
        )
        config._experts_implementation = implementation
        with torch.device("meta"):
            block: Any = Qwen3MoeSparseMoeBlock(config)
        weights = {
            "gate.weight": layer.gate.weight,
            "experts.gate_up_proj": layer.experts.gate_up_proj,
            "experts.down_proj": layer.experts.down_proj,
        }
        block.load_state_dict(weights, assign=True)
        block.eval().requires_grad_(False)
        return lambda x: block(x[None])[0]

    return {f"transformers {name}": way(name) for name in ("eager", "grouped_mm")}


def check_agreement(answers: Mapping[str, Tensor]) -> None:
    """Stop the benchmark unless all answers are those of the first, up to rounding."""
    first, expected = next(iter(answers.items()))
    for name, answer in answers.items():
        error = float((answer - expected).abs().max() / expected.abs().max())
        if not error < TOLERANCE[expected.dtype]:
            raise SystemExit(f"{name} differs from {first} by {error:.1e} of the largest; nothing was written")
