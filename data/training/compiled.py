"""Compiled layers for training on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tinyllm.model.layers import MLP
from tinyllm.model.ops import LayerOps
from tinyllm.model.qwen3 import DecoderLayer, Qwen3ForCausalLM


def compile_layers(model: Qwen3ForCausalLM) -> None:
    """Let `torch.compile` fuse what lies before and after attention in each layer: norms, rotation, SwiGLU.

    At these widths training moves bytes rather than multiplies, so fewer passes over the activations are what counts.
    The two parts are compiled once, for one number of tokens, and serve all layers; whole layers would be compiled anew
    for each, as each asks `attend` for itself. The second part of a sparse layer is left as it is: how many tokens an
    expert gets is known only when it runs.
    """
    before = torch.compile(before_attention, dynamic=False)
    after = torch.compile(after_attention, dynamic=False)
    for layer in model.layers:
        assert isinstance(layer, DecoderLayer)
        rest = after if isinstance(layer.mlp, MLP) else after_attention
        layer.forward = partial(in_parts, layer, before, rest)  # type: ignore[method-assign]


def in_parts(
    layer: DecoderLayer,
    before: Callable[..., tuple[Tensor, ...]],
    after: Callable[..., Tensor],
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    ops: LayerOps,
) -> Tensor:
    """What `DecoderLayer.forward` computes, attention between two parts."""
    q, k, v = before(layer, x, cos, sin)
    return after(layer, x, ops.attend(layer.self_attn.layer, q, k, v))


def before_attention(layer: DecoderLayer, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
    """[T, hidden_size] -> q [T, Hq, D], k and v [T, Hkv, D], all in the dtype of v."""
    q, k, v = layer.self_attn.project(layer.input_layernorm(x), cos, sin)
    return q.to(v.dtype), k.to(v.dtype), v


def after_attention(layer: DecoderLayer, x: Tensor, attended: Tensor) -> Tensor:
    """The residual stream and what attention gave, [T, Hq, D] -> the residual stream after the layer."""
    x = x + layer.self_attn.o_proj(attended.flatten(start_dim=1))
    return x + layer.mlp(layer.post_attention_layernorm(x))
