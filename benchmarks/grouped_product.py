"""Our grouped product of a sparse layer on CUDA, beside torch's and beside a dense one of as many operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.sparse_layers import Shape, check_agreement
from tinyllm.experts.dispatch import permute
from tinyllm.experts.layer import blocks_of
from tinyllm.experts.routing import topk_router
from tinyllm.kernels.grouped_gemm import grouped_gemm


def measure_grouped_product(shape: Shape, tokens: Sequence[int], seed: int) -> dict[str, Any]:
    """The grouped product alone on CUDA in bfloat16: ours, torch's, and a dense one of as many operations.

    Rows are sorted for torch's beforehand, and blocks are laid out for ours: what is compared is the products.
    """
    from triton.testing import do_bench

    on_gpu: Any = {"device": "cuda", "dtype": torch.bfloat16}
    torch.manual_seed(seed)
    w = torch.randn(shape.num_experts, 2 * shape.inner, shape.hidden, **on_gpu) / shape.hidden**0.5
    results: dict[str, Any] = {}
    for num_tokens in tokens:
        x = torch.randn(num_tokens, shape.hidden, **on_gpu)
        _, ids = topk_router(torch.randn(num_tokens, shape.num_experts, **on_gpu), shape.top_k, True)
        blocks = blocks_of(ids, shape.num_experts)
        rows, pairs, counts = permute(x, ids, shape.num_experts)
        ends = counts.cumsum(0).int()
        calls: dict[str, Callable[[], Tensor]] = {
            "grouped_gemm": partial(grouped_gemm, x, w, *blocks, ids.numel()),
            "torch grouped_mm": partial(F.grouped_mm, rows, w.mT, offs=ends),
            "dense cuBLAS": partial(F.linear, rows, w[0]),
        }
        check_agreement({"torch": calls["torch grouped_mm"](), "grouped_gemm": calls["grouped_gemm"]()[pairs]})
        times = {name: float(do_bench(call, return_mode="median")) for name, call in calls.items()}
        operations = 2 * ids.numel() * 2 * shape.inner * shape.hidden
        results[str(num_tokens)] = {
            "milliseconds": times,
            "operations_per_second": {name: operations / time * 1e3 for name, time in times.items()},
            "share_of_dense_rate": times["dense cuBLAS"] / times["grouped_gemm"],
            "speed_over_torch_grouped_mm": times["torch grouped_mm"] / times["grouped_gemm"],
        }
        print(f"grouped product, T = {num_tokens}:", {name: round(time, 4) for name, time in times.items()})
    return results
