"""The ways to run experts in the engine, by name."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyllm.config import EXPERTS_BACKENDS, check_backend
from tinyllm.experts.base import ExpertsFunction, RunExperts, SparseLayer
from tinyllm.experts.layer import experts_torch, experts_triton
from tinyllm.experts.parallel import ExpertParallel, SummedExperts
from tinyllm.experts.routing import topk_router
from tinyllm.kernels.runtime import check_device, kernels_compile
from tinyllm.parallel.ranks import Ranks


class TorchExperts:
    """Pairs sorted by expert and one product an expert, in torch: it runs everywhere; see `experts_torch`.

    It counts the experts' pairs on the CPU to split the batch, so its shapes change from step to step.
    """

    supports_cuda_graphs = False
    run: ExpertsFunction = staticmethod(experts_torch)

    def __call__(self, mlp: SparseLayer, x: Tensor, router_logits: Tensor) -> Tensor:
        """See `RunExperts`."""
        topk_weights, topk_ids = topk_router(router_logits, mlp.num_experts_per_tok, mlp.norm_topk_prob)
        return self.run(x, topk_weights, topk_ids, mlp.experts.gate_up_proj, mlp.experts.down_proj)


class TritonExperts(TorchExperts):
    """Blocks of one expert each and our own grouped product: no wait for the GPU, so CUDA graphs can hold it."""

    supports_cuda_graphs = True
    run: ExpertsFunction = staticmethod(experts_triton)


def experts_backend(
    name: str, device: torch.device, ranks: Ranks | None = None, expert_parallel: bool = False
) -> RunExperts:
    """A way to run experts: "torch", "triton", or "auto", which is Triton where it compiles for CUDA.

    Args:
        ranks: those that the experts lie on; None where all are here.
        expert_parallel: each expert is whole on one of the ranks; otherwise each rank has a part of every expert.

    Raises:
        OptionError: an unknown name.
        KernelsUnavailable: "triton" where there is no Triton, or where it can run nothing on this device.
    """
    check_backend("experts", name, EXPERTS_BACKENDS)
    if name == "triton" or (name == "auto" and device.type == "cuda" and kernels_compile()):
        check_device(device)
        local: TorchExperts = TritonExperts()
    else:
        local = TorchExperts()
    if ranks is None:
        return local
    return ExpertParallel(local.run, ranks) if expert_parallel else SummedExperts(local, ranks)
