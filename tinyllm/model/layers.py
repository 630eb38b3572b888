"""The two layers of the decoder that look at one token at a time: RMSNorm and the SwiGLU MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyllm.kernels.reference import swiglu


class RMSNorm(nn.Module):
    """Scale the last dimension to root mean square 1, then by a learned weight (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.size = (size,)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size]: `weight * x / sqrt(mean(x * x) + eps)`, in the dtype of `x`."""
        return F.rms_norm(x, self.size, self.weight, self.eps)


class MLP(nn.Module):
    """The feed-forward half of a layer: `down(silu(gate(x)) * up(x))`, SwiGLU (arXiv 2002.05202).

    Gate and up are one matrix, [2 * intermediate_size, hidden_size]: one matmul for the batch, not two.
    """

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[T, hidden_size] -> [T, hidden_size]."""
        return self.down_proj(swiglu(self.gate_up_proj(x)))
