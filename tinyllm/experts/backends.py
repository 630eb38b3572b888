"""The ways to run experts in the engine, by name."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from tinyllm.config import EXPERTS_BACKENDS, check_backend
from tinyllm.errors import OptionError
from tinyllm.experts.align import moe_align_block_size
from tinyllm.experts.base import Align, ExpertsFunction, Router, RunExperts, SparseLayer
from tinyllm.experts.layer import experts_native, experts_torch, experts_triton
from tinyllm.experts.parallel import ExpertParallel, SummedExperts
from tinyllm.experts.routing import topk_router
from tinyllm.kernels.grouped_gemm import grouped_gemm_tile
from tinyllm.kernels.launch import Kernel
from tinyllm.kernels.runtime import check_device, kernels_compile
from tinyllm.kernels.sparse_mlp import library
from tinyllm.parallel.ranks import Ranks
from tinyllm.parts import Parts, resolve


class TorchExperts:
    """Pairs sorted by expert and one product an expert, in torch: it runs everywhere; see `experts_torch`.

    It counts the experts' pairs on the CPU to split the batch, so its shapes change from step to step.
    """

    supports_cuda_graphs = False

    def __init__(self, router: Router = topk_router, run: ExpertsFunction = experts_torch) -> None:
        """Take the router, and what computes the experts that it chose: any way of layer.py."""
        self.router = router
        self.run = run

    def __call__(self, mlp: SparseLayer, x: Tensor, router_logits: Tensor) -> Tensor:
        """See `RunExperts`."""
        topk_weights, topk_ids = self.router(router_logits, mlp.num_experts_per_tok, mlp.norm_topk_prob)
        return self.run(x, topk_weights, topk_ids, mlp.experts.gate_up_proj, mlp.experts.down_proj)


class TritonExperts(TorchExperts):
    """Blocks of one expert each and our own grouped product: no wait for the GPU, so CUDA graphs can hold it.

    They do so with the reference's router and blocks only. A learner's may wait for the GPU, and the look at what they
    return does.
    """

    def __init__(
        self, router: Router = topk_router, align: Align = moe_align_block_size, tile: Kernel = grouped_gemm_tile
    ) -> None:
        super().__init__(router, partial(experts_triton, align=align, tile=tile))
        self.supports_cuda_graphs = router is topk_router and align is moe_align_block_size


class NativeExperts(TorchExperts):
    """Sorting, products and sum in one call of C, for float32 on the CPU."""

    def __init__(self, router: Router = topk_router) -> None:
        """Compile the kernel where that has not been done.

        Raises:
            NativeUnavailable: it cannot be compiled.
        """
        library()
        super().__init__(router, experts_native)


def experts_backend(
    name: str,
    device: torch.device,
    parts: Parts | None = None,
    ranks: Ranks | None = None,
    expert_parallel: bool = False,
    dtype: torch.dtype = torch.float32,
) -> RunExperts:
    """A way to run experts, by name.

    "torch" runs everywhere; "triton" where its kernels do; "native" is C for float32 on the CPU, which needs a C
    compiler; "auto" is Triton where it compiles for CUDA and torch elsewhere.

    Args:
        parts: what it is made of; the reference by default.
        ranks: those that the experts lie on; None where all are here.
        expert_parallel: each expert is whole on one of the ranks; otherwise each rank has a part of every expert.
        dtype: of the model.

    Raises:
        OptionError: an unknown name, or "native" for another device or dtype.
        KernelsUnavailable: "triton" where there is no Triton, or where it can run nothing on this device.
        NativeUnavailable: "native" where the C kernel cannot be compiled.
    """
    check_backend("experts", name, EXPERTS_BACKENDS)
    parts = parts or resolve()
    router = parts["topk_router"]
    if name == "triton" or (name == "auto" and device.type == "cuda" and kernels_compile()):
        check_device(device)
        local: TorchExperts = TritonExperts(router, parts["moe_align_block_size"], parts["grouped_gemm_tile"])
    elif name == "native":
        if (device.type, dtype) != ("cpu", torch.float32):
            raise OptionError(f"the native experts backend is for float32 on the CPU, not {dtype} on {device}")
        local = NativeExperts(router)
    else:
        run = partial(experts_torch, permute=parts["permute"], unpermute=parts["unpermute"])
        local = TorchExperts(router, run)
    if ranks is None:
        return local
    return ExpertParallel(local.run, ranks, parts) if expert_parallel else SummedExperts(local, ranks)
