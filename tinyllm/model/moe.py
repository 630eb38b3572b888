"""The mixture-of-experts MLP of Qwen3-MoE: E small MLPs a layer, of which each token uses K.

A router scores the experts for every token; the K likeliest work, and their answers are added, weighted by the
router's probabilities. The layer holds the weights of E experts and does the work of K.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinyllm.experts.backends import TorchExperts
from tinyllm.experts.base import RunExperts


class SparseMLP(nn.Module):
    """The feed-forward half of a sparse layer: route every token to K of E experts, add up what they answer."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        *,
        num_experts: int,
        num_experts_per_tok: int,
        norm_topk_prob: bool = True,
        layer: int = 0,
    ) -> None:
        """Set the sizes.

        Args:
            hidden_size: the width of a token.
            intermediate_size: I, the width inside one expert (`moe_intermediate_size` of the config).
            num_experts: E.
            num_experts_per_tok: K.
            norm_topk_prob: let the K weights of a token add up to 1.
            layer: which layer of the model it is in.
        """
        super().__init__()
        self.layer = layer
        self.num_experts_per_tok = num_experts_per_tok
        self.norm_topk_prob = norm_topk_prob
        self.gate = nn.Linear(hidden_size, num_experts, bias=False)  # the router; not the gate of SwiGLU
        self.experts = Experts(hidden_size, intermediate_size, num_experts)

    def forward(self, x: Tensor, run: RunExperts = TorchExperts()) -> Tensor:  # noqa: B008, it has no state
        """[T, hidden_size] -> [T, hidden_size]."""
        return run(self, x, self.gate(x))


class Experts(nn.Module):
    """The weights of E SwiGLU MLPs, stacked: gate and up in one [E, 2I, hidden_size], down [E, hidden_size, I]."""

    def __init__(self, hidden_size: int, intermediate_size: int, num_experts: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * intermediate_size, hidden_size))
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden_size, intermediate_size))
        for weight in (self.gate_up_proj, self.down_proj):
            bound = weight.shape[-1] ** -0.5  # as nn.Linear begins
            nn.init.uniform_(weight, -bound, bound)
