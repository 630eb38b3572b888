"""The work of a sparse layer: an expert loop, sorted groups, one grouped product of torch's, Triton's, and C.

All take the same and give the same, up to rounding:

    x [T, H], topk_weights [T, K], topk_ids [T, K], gate_up_proj [E, 2I, H], down_proj [E, H, I]  ->  [T, H]

A pair whose id is not one of 0..E-1 adds nothing. What sorts the pairs is a parameter, so that a learner's own can be
given in place of the reference's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.experts import dispatch
from tinyllm.experts.align import align_single_pairs, moe_align_block_size
from tinyllm.experts.base import Align, Permute, Unpermute
from tinyllm.kernels.grouped_gemm import LARGE_BLOCK, SMALL_BLOCK, grouped_gemm, grouped_gemm_tile
from tinyllm.kernels.launch import Kernel
from tinyllm.kernels.reference import swiglu
from tinyllm.kernels.sparse_mlp import sparse_mlp

#: All of it in one call of C: float32 on the CPU, without gradients.
experts_native = sparse_mlp
#: Pairs an expert, on average, from which `experts_torch` runs one expert after another.
LARGE_GROUP = 128


def experts_loop(x: Tensor, topk_weights: Tensor, topk_ids: Tensor, gate_up_proj: Tensor, down_proj: Tensor) -> Tensor:
    """One expert after another: find its tokens, run them, add the answers. The oracle of the other ways."""
    out = torch.zeros_like(x)
    for expert in range(len(gate_up_proj)):
        tokens, places = torch.where(topk_ids == expert)
        answers = F.linear(swiglu(F.linear(x[tokens], gate_up_proj[expert])), down_proj[expert])
        out.index_add_(0, tokens, answers * topk_weights[tokens, places, None])
    return out


def experts_sorted(
    x: Tensor,
    topk_weights: Tensor,
    topk_ids: Tensor,
    gate_up_proj: Tensor,
    down_proj: Tensor,
    *,
    permute: Permute = dispatch.permute,
    unpermute: Unpermute = dispatch.unpermute,
) -> Tensor:
    """Sort the pairs by expert once, then one product for each expert that has any: what a CPU does well."""
    permuted, pairs, counts = permute(x, topk_ids, len(gate_up_proj))
    groups = permuted.split(counts.tolist())
    answers = [
        F.linear(swiglu(F.linear(group, gate_up)), down)
        for group, gate_up, down in zip(groups, gate_up_proj.unbind(), down_proj.unbind(), strict=True)
        if len(group)
    ]
    return unpermute(torch.cat([*answers, permuted[:0]]), pairs, topk_weights)


def experts_torch(
    x: Tensor,
    topk_weights: Tensor,
    topk_ids: Tensor,
    gate_up_proj: Tensor,
    down_proj: Tensor,
    *,
    permute: Permute = dispatch.permute,
    unpermute: Unpermute = dispatch.unpermute,
) -> Tensor:
    """The faster of the two ways in torch: `experts_grouped_mm` on a CPU where it fits and groups are small."""
    # One expert after another has its numbers in the cache still when the next product needs them.
    fits = x.device.type == "cpu" and topk_ids.numel() < LARGE_GROUP * len(gate_up_proj)
    # Autocast does not know grouped_mm, which would meet two dtypes under it.
    fits &= x.dtype == gate_up_proj.dtype and not torch.is_autocast_enabled("cpu")
    fits &= all(w.shape[2] * w.element_size() % 16 == 0 for w in (gate_up_proj, down_proj))
    way = experts_grouped_mm if fits else experts_sorted
    return way(x, topk_weights, topk_ids, gate_up_proj, down_proj, permute=permute, unpermute=unpermute)


def experts_grouped_mm(
    x: Tensor,
    topk_weights: Tensor,
    topk_ids: Tensor,
    gate_up_proj: Tensor,
    down_proj: Tensor,
    *,
    permute: Permute = dispatch.permute,
    unpermute: Unpermute = dispatch.unpermute,
) -> Tensor:
    """Sort the pairs by expert, then one call of torch for all groups; rows must begin at multiples of 16 bytes."""
    permuted, pairs, counts = permute(x, topk_ids, len(gate_up_proj))
    ends = counts.cumsum(0).int()
    hidden = swiglu(F.grouped_mm(permuted, gate_up_proj.mT, offs=ends))
    return unpermute(F.grouped_mm(hidden, down_proj.mT, offs=ends), pairs, topk_weights)


def experts_triton(
    x: Tensor,
    topk_weights: Tensor,
    topk_ids: Tensor,
    gate_up_proj: Tensor,
    down_proj: Tensor,
    *,
    align: Align = moe_align_block_size,
    tile: Kernel = grouped_gemm_tile,
) -> Tensor:
    """Blocks of one expert each and two grouped products of our own kernel. Nothing waits for the GPU."""
    blocks, num_pairs = blocks_of(topk_ids, len(gate_up_proj), align), topk_ids.numel()
    hidden = swiglu(grouped_gemm(x, gate_up_proj, *blocks, num_pairs, tile=tile))
    answers = grouped_gemm(hidden, down_proj, *blocks, num_pairs, topk_weights.contiguous(), tile=tile)
    return answers.view(*topk_ids.shape, -1).sum(dim=1)


def blocks_of(topk_ids: Tensor, num_experts: int, align: Align = moe_align_block_size) -> tuple[Tensor, Tensor, Tensor]:
    """The blocks of `moe_align_block_size` or `align_single_pairs`, of the size that suits so many pairs [T, K]."""
    num_pairs = topk_ids.numel()
    if num_pairs <= num_experts // 2:  # nearly all alone with their expert: sorting finds nothing to put together
        return align_single_pairs(topk_ids, SMALL_BLOCK, num_experts)
    block_size = LARGE_BLOCK if num_pairs >= LARGE_BLOCK * num_experts else SMALL_BLOCK
    return align(topk_ids, block_size, num_experts)
