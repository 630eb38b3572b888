"""The experts of a sparse layer on the CPU in C: one call for all of them, compiled on first use."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from tinyllm.kernels.launch import check
from tinyllm.kernels.native import ADDRESS, COMMON_FLAGS, INT, LONG, compiled

SOURCE = Path(__file__).with_name("sparse_mlp.c")
#: Sums stay in the order that the source gives, so that a token's answer is the same to the bit in every batch.
FLAGS = (*COMMON_FLAGS, "-ffp-contract=fast")
TILE = 128  # rows of one expert for which its weights are read once


def sparse_mlp(x: Tensor, topk_weights: Tensor, topk_ids: Tensor, gate_up_proj: Tensor, down_proj: Tensor) -> Tensor:
    """SwiGLU experts: each token through K of E, the answers added up with their weights.

    A pair whose id is not one of 0..E-1 adds nothing. It has no gradient.

    Args:
        x: [T, H] float32, the numbers of a token side by side.
        topk_weights, topk_ids: [T, K], float32 and int32 or int64.
        gate_up_proj: [E, 2I, H] float32, contiguous, gate before up.
        down_proj: [E, H, I] float32, contiguous.

    Returns:
        [T, H], to the bit the same for a token whoever else is in the batch and whatever the number of threads.

    Raises:
        ValueError: a shape, dtype, device or layout is another one.
        NativeUnavailable: the kernel cannot be compiled.
    """
    floats = (x, topk_weights, gate_up_proj, down_proj)
    check(all(t.dtype == torch.float32 and t.device.type == "cpu" for t in floats), "the C kernel takes float32 on CPU")
    check(
        topk_ids.dtype in (torch.int32, torch.int64) and topk_ids.device.type == "cpu",
        f"topk_ids is {topk_ids.dtype} on {topk_ids.device}; it must be int32 or int64 on the CPU",
    )
    (num_tokens, hidden_size), (num_experts, _, inner) = x.shape, down_proj.shape
    check(
        down_proj.shape[1] == hidden_size and gate_up_proj.shape == (num_experts, 2 * inner, hidden_size),
        f"x is {list(x.shape)}, gate_up_proj {list(gate_up_proj.shape)} and down_proj {list(down_proj.shape)}; "
        "they must be [T, H], [E, 2I, H] and [E, H, I]",
    )
    check(
        topk_weights.shape == topk_ids.shape and topk_ids.ndim == 2 and len(topk_ids) == num_tokens,
        f"topk_weights is {list(topk_weights.shape)} and topk_ids {list(topk_ids.shape)} for {num_tokens} tokens; "
        "both must be [T, K]",
    )
    check(all(t.is_contiguous() for t in (gate_up_proj, down_proj)), "the weights must be contiguous")
    check(x.stride(1) == 1 or hidden_size <= 1, "the numbers of a token must lie side by side in x")
    num_pairs = topk_ids.numel()
    topk_weights, topk_ids = topk_weights.contiguous(), topk_ids.long().contiguous()
    out = torch.empty(num_tokens, hidden_size)
    hidden, answers = torch.empty(num_pairs, inner), torch.empty(num_pairs, hidden_size)
    order, tiles = (torch.empty(size, dtype=torch.int32) for size in (num_pairs, 3 * (num_experts + num_pairs // TILE)))
    library().sparse_mlp(
        *(t.data_ptr() for t in (x, topk_weights, topk_ids, gate_up_proj, down_proj)),
        *(t.data_ptr() for t in (out, hidden, answers, order, tiles)),
        *(num_tokens, topk_ids.shape[1], num_experts, hidden_size, inner, TILE, x.stride(0)),
    )
    return out


@cache
def library() -> ctypes.CDLL:
    """The compiled kernel; see `compiled`.

    Raises:
        NativeUnavailable: there is no C compiler, or it fails.
    """
    loaded = compiled(SOURCE, FLAGS)
    loaded.sparse_mlp.argtypes = [*[ADDRESS] * 10, *[INT] * 6, LONG]
    loaded.sparse_mlp.restype = None
    return loaded
