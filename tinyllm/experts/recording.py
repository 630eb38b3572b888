"""What a step asks of the experts: how many of them it touches in each sparse layer, and how unevenly it loads them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tinyllm.experts.base import Router, RunExperts, SparseLayer
from tinyllm.experts.routing import expert_counts, topk_router


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """One sparse layer in one step.

    Attributes:
        layer: its number in the model.
        num_touched: experts that some token was sent to, and whose weights the step therefore read; `cost.py` has the
            law for it.
        imbalance: the busiest expert's tokens over the mean of all E; 1 is balance, E / K where all choose alike.
    """

    layer: int
    num_touched: int
    imbalance: float


class RecordedExperts:
    """Runs experts as another does, and counts what the router chooses: for all tokens, where ranks share them too.

    No CUDA graph may hold it: a recording's batch is padded, and the padding would be counted too.
    """

    supports_cuda_graphs = False

    def __init__(self, run: RunExperts, router: Router = topk_router) -> None:
        """Take `run`, and its router, which is asked a second time: so any way of running experts can be counted."""
        self.run = run
        self.router = router
        self._counts: dict[int, Tensor] = {}  # by layer, so that a step replaces what one that broke off has left

    def __call__(self, mlp: SparseLayer, x: Tensor, router_logits: Tensor) -> Tensor:
        """See `RunExperts`."""
        _, topk_ids = self.router(router_logits, mlp.num_experts_per_tok, mlp.norm_topk_prob)
        self._counts[mlp.layer] = expert_counts(topk_ids, router_logits.shape[-1])
        return self.run(mlp, x, router_logits)

    def take(self) -> tuple[ExpertLoad, ...]:
        """The load of every sparse layer in the step that has just been computed. Waits for the GPU, once for all."""
        if not self._counts:
            return ()
        counts = torch.stack(list(self._counts.values())).cpu()  # [layers, E]
        touched = (counts > 0).sum(dim=1).tolist()
        imbalance = (counts.amax(dim=1) / counts.double().mean(dim=1)).tolist()
        loads = map(ExpertLoad, self._counts, touched, imbalance)
        self._counts = {}
        return tuple(loads)
