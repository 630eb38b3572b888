"""Muon for many small matrices: those of one shape are orthogonalised together, in one batched product."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

STEPS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest matrices with singular values near 1, by a quintic Newton-Schulz iteration in bfloat16.

    Args:
        matrices: [n, rows, columns].

    Returns:
        [n, rows, columns], bfloat16; the singular values end between about 0.7 and 1.2.
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024); what `torch.optim.Muon` computes, without its loop over matrices.

    A model of this size has a hundred small matrices. One at a time they cost thousands of kernel launches, as long as
    the whole backward pass on a large GPU; stacked by shape, a few dozen.
    """

    def __init__(self, matrices: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        """Take the weights.

        Args:
            matrices: [..., rows, columns] each; the leading dimensions number matrices of their own.
            lr: learning rate, scaled to the size of an AdamW update (arXiv 2502.16982, section 2.2).
            weight_decay: decoupled.
            momentum: of Nesterov's kind.
        """
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every weight that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(tuple(weight.shape), []).append(weight)
            for shape, weights in by_shape.items():
                self._update(weights, shape, group)

    def _update(self, weights: list[Tensor], shape: tuple[int, ...], group: dict[str, Any]) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, buffers, group["momentum"])
        rows, columns = shape[-2:]
        directions = orthogonalise(torch.stack(updates).view(-1, rows, columns)).view(len(weights), *shape)
        scale = 0.2 * max(rows, columns) ** 0.5
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, list(directions.to(weights[0].dtype).unbind()), alpha=-group["lr"] * scale)
