"""The models and how each comes about: new, deeper by half-trained layers, or from another model's weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from tinyllm.config import ModelConfig
from tinyllm.model.layers import MLP
from tinyllm.model.qwen3 import DecoderLayer, Qwen3ForCausalLM


def new_model(config: ModelConfig, seed: int) -> Qwen3ForCausalLM:
    """A model with small random weights; the two matrices that add to the residual stream start smaller."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            nn.init.normal_(weight, std=0.02 / math.sqrt(2 * config.num_layers) if into_residual else 0.02)
    return model


def with_layers_doubled(model: Qwen3ForCausalLM) -> Qwen3ForCausalLM:
    """The same function with twice the layers: after each stands a copy that adds nothing yet (arXiv 2401.02415).

    The copy's two output matrices are zero, so the model says what it said; they are learned from there. The first
    half of a run is thus done at half the cost.
    """
    config = replace(model.config, num_layers=2 * model.config.num_layers)
    deeper = Qwen3ForCausalLM(config)
    for name, child in model.named_children():
        if name != "layers":
            getattr(deeper, name).load_state_dict(child.state_dict())
    for i, layer in enumerate(model.layers):
        for place in (2 * i, 2 * i + 1):
            deeper.layers[place].load_state_dict(copy.deepcopy(layer.state_dict()))
        added = deeper.layers[2 * i + 1]
        assert isinstance(added, DecoderLayer)
        assert isinstance(added.mlp, MLP)
        nn.init.zeros_(added.self_attn.o_proj.weight)
        nn.init.zeros_(added.mlp.down_proj.weight)
    return deeper


@torch.no_grad()
def interpolate_weights(model: Qwen3ForCausalLM, before: Qwen3ForCausalLM, share: float) -> None:
    """Put a model's weights between those before its further training and its own (WiSE-FT, arXiv 2109.01903).

    Args:
        model: changed in place.
        before: the model as it was.
        share: 0 gives `before`, 1 leaves the model as it is.
    """
    for weight, old in zip(model.parameters(), before.parameters(), strict=True):
        weight.copy_(torch.lerp(old, weight, share))


@torch.no_grad()
def add_task_vector(mixture: Qwen3ForCausalLM, before: Qwen3ForCausalLM, since: Qwen3ForCausalLM) -> None:
    """Add a task vector to a mixture: what the model that it was upcycled from has learned since (arXiv 2212.04089).

    Each weight is moved as its like in that model has moved, every expert as the MLP that it began as.

    Args:
        mixture: changed in place.
        before: the model when the mixture was upcycled from it.
        since: that model after further training.
    """
    old, new = before.state_dict(), since.state_dict()
    for weight, origin in weights_of(mixture, old):
        weight += new[origin] - old[origin]


@torch.no_grad()
def interpolate_with_upcycled(mixture: Qwen3ForCausalLM, target: Qwen3ForCausalLM, share: float) -> None:
    """Put a mixture's weights between its own and those that it would be upcycled with from the target (as WiSE-FT).

    Args:
        mixture: changed in place, but for its routers.
        target: what it is held to; every expert to the MLP that it began as.
        share: 0 makes all experts alike, 1 leaves the mixture as it is.
    """
    dense = target.state_dict()
    for weight, origin in weights_of(mixture, dense):
        weight.copy_(torch.lerp(dense[origin].expand_as(weight), weight, share))


def weights_of(mixture: Qwen3ForCausalLM, dense: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, str]]:
    """Each weight of a mixture with the name of its like in the dense model; the routers have none."""
    for name, weight in mixture.state_dict().items():
        origin = name.replace(".experts.", ".") + (".weight" if ".experts." in name else "")
        if origin in dense:
            yield weight, origin


def with_experts(
    model: Qwen3ForCausalLM, num_experts: int, num_experts_per_tok: int, sparse_step: int, seed: int
) -> Qwen3ForCausalLM:
    """The same function as a mixture: every `sparse_step`-th MLP becomes E copies of itself (arXiv 2212.05055).

    The weights of a token's K experts add up to 1, so equal experts say what the one MLP said. The routers are new;
    they send different tokens to different experts, and these grow apart in training.
    """
    config = replace(
        model.config,
        num_experts=num_experts,
        num_experts_per_tok=num_experts_per_tok,
        moe_intermediate_size=model.config.intermediate_size,
        norm_topk_prob=True,
        decoder_sparse_step=sparse_step,
    )
    mixture = Qwen3ForCausalLM(config)
    torch.manual_seed(seed)
    state = model.state_dict()
    for i in config.sparse_layers:
        router = torch.empty(num_experts, config.hidden_size)
        state[f"layers.{i}.mlp.gate.weight"] = nn.init.normal_(router, std=0.02)
        for name in ("gate_up_proj", "down_proj"):
            copies = state.pop(f"layers.{i}.mlp.{name}.weight").expand(num_experts, -1, -1).clone()
            state[f"layers.{i}.mlp.experts.{name}"] = copies
    mixture.load_state_dict(state)
    return mixture
