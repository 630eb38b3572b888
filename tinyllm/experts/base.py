"""What runs the experts of a sparse layer: one of several ways that are handed to the model for each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

#: x, topk_weights, topk_ids, gate_up_proj, down_proj -> [T, H]; see layer.py.
ExpertsFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
# The parts that they are made of, the reference's or a learner's: like `topk_router`, `permute`, `unpermute` and
# `moe_align_block_size`.
Router = Callable[[Tensor, int, bool], tuple[Tensor, Tensor]]
Permute = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor]]
Unpermute = Callable[[Tensor, Tensor, Tensor], Tensor]
Align = Callable[[Tensor, int, int], tuple[Tensor, Tensor, Tensor]]


class ExpertWeights(Protocol):
    """The weights of E SwiGLU MLPs, stacked."""

    @property
    def gate_up_proj(self) -> Tensor:
        """[E, 2I, H], gate before up."""
        ...

    @property
    def down_proj(self) -> Tensor:
        """[E, H, I]."""
        ...


class SparseLayer(Protocol):
    """What a way of running experts sees of the layer that asks.

    Attributes:
        layer: its number in the model.
        num_experts_per_tok: K.
        norm_topk_prob: whether the K weights of a token add up to 1.
    """

    layer: int
    num_experts_per_tok: int
    norm_topk_prob: bool

    @property
    def experts(self) -> ExpertWeights:
        """Their weights."""
        ...


class RunExperts(Protocol):
    """A way to run the experts of a sparse layer."""

    @property
    def supports_cuda_graphs(self) -> bool:
        """Whether it neither waits for the GPU nor takes a shape or a Python number from a tensor's values."""
        ...

    def __call__(self, mlp: SparseLayer, x: Tensor, router_logits: Tensor) -> Tensor:
        """Route every token to K of the E experts and add up what they answer.

        Args:
            mlp: the layer that asks.
            x: [T, H].
            router_logits: [T, E], what the layer's `gate` gave.

        Returns:
            [T, H].
        """
        ...
