"""Muon for the matrices, AdamW for the rest, and one learning rate over the run."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor

import torch
from torch import nn

from data.training.muon import Muon

MATRIX_RATE, OTHER_RATE = 0.006, 0.003


class Optimizer:
    """Two optimizers under one schedule: warm-up, a long plateau, a straight way down to zero.

    Muon (Jordan et al. 2024) takes the matrices of the layers: it needs about half the tokens of AdamW here. The
    plateau lets a run be cut short or go on: only the last part has to know where the end is (arXiv 2405.18392).
    """

    def __init__(self, model: nn.Module, peak: float = 1.0, side_by_side: int = 1) -> None:
        """Divide the weights up.

        Args:
            peak: factor on both learning rates, below 1 where a trained model is trained on.
            side_by_side: how many threads share the matrices; on a CPU Muon's products are a sixth of a step.
        """
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, weight in model.named_parameters():
            is_table = "embed" in name or name.endswith("mlp.gate.weight")  # a row a token, or a row an expert
            (others if weight.dim() < 2 or is_table else matrices).append(weight)
        self.parts: Sequence[torch.optim.Optimizer] = (
            torch.optim.AdamW(others, lr=OTHER_RATE * peak, betas=(0.9, 0.95), weight_decay=0.0),
            *(
                Muon(some, lr=MATRIX_RATE * peak, weight_decay=0.05)
                for some in (matrices[first::side_by_side] for first in range(side_by_side))
                if some
            ),
        )
        self.peaks = [part.param_groups[0]["lr"] for part in self.parts]

    def step(self, share: float, pool: Executor) -> None:
        """One update at `share` of the peak rates."""
        for part, peak in zip(self.parts, self.peaks, strict=True):
            for group in part.param_groups:
                group["lr"] = peak * share
        for done in [pool.submit(part.step) for part in self.parts]:
            done.result()
        for part in self.parts:
            part.zero_grad()

    def state_dict(self) -> list[dict[str, object]]:
        """What `load_state_dict` takes."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, state: list[dict[str, object]]) -> None:
        """Go on where another run stopped."""
        for part, saved in zip(self.parts, state, strict=True):
            part.load_state_dict(saved)


def rate(step: int, steps: int, warm_up: int = 100, decay: float = 0.35) -> float:
    """The share of the peak learning rate at a step: up over `warm_up` steps, flat, down over the last `decay`.

    A short run takes a tenth of its steps to warm up.
    """
    up = (step + 1) / min(warm_up, max(1, steps // 10))
    down = (steps - step) / max(1.0, decay * steps)
    return min(1.0, up, down)
