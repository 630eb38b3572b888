"""Give each block of rows one expert, so that a kernel's program multiplies by one expert's weights alone."""

from __future__ import annotations

import torch
from torch import Tensor

from tinyllm.experts.routing import count_known, known_experts


def moe_align_block_size(topk_ids: Tensor, block_size: int, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sort pairs by expert, and pad each expert's pairs to a multiple of the block size, as vLLM and SGLang do.

    Pair i is token i // K with its expert number i % K. Padding is T * K, one past the last pair: a kernel masks it. An
    expert without a pair gets no block. The sizes depend on shapes alone and nothing waits for the GPU, so that a
    CUDA graph can hold it.

    Args:
        topk_ids: [T, K]; a pair whose id is not one of 0..E-1 is left out.
        block_size: rows of a block, the kernel's BLOCK_M.
        num_experts: E.

    Returns:
        sorted_token_ids: [max_padded] int32, the pairs expert by expert, padding between and behind them; max_padded is
            T * K + min(E, T * K) * (block_size - 1), rounded up to blocks.
        expert_ids: [max_padded / block_size] int32, the expert of each block; -1 behind the last one in use.
        num_tokens_post_padded: [1] int32, how many of `sorted_token_ids` are in use.
    """
    num_pairs = topk_ids.numel()
    most = min(num_pairs, num_experts)  # that many experts can have padding
    num_blocks = -(-(num_pairs + most * (block_size - 1)) // block_size)
    ids = known_experts(topk_ids, num_experts)
    counts = count_known(ids, num_experts)
    padded = (counts + block_size - 1) // block_size * block_size
    ends = padded.cumsum(0)
    # Where an expert's rows begin, less where they begin without padding: what padding moves them by.
    shift = ends - padded - (counts.cumsum(0) - counts)
    order = ids.argsort(stable=True)
    rows = torch.arange(num_pairs, device=ids.device) + torch.cat((shift, shift.new_zeros(1)))[ids[order]]
    rows = torch.where(ids[order] < num_experts, rows, num_blocks * block_size)  # left out: behind the end

    sorted_token_ids = ids.new_full((num_blocks * block_size + 1,), num_pairs).scatter_(0, rows, order)[:-1]
    starts = torch.arange(num_blocks, device=ids.device) * block_size
    expert_ids = torch.searchsorted(ends, starts, right=True)
    expert_ids = torch.where(expert_ids < num_experts, expert_ids, -1)
    return sorted_token_ids.int(), expert_ids.int(), ends[-1:].int()


def align_single_pairs(topk_ids: Tensor, block_size: int, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """A block for each pair, unsorted: `moe_align_block_size` for so few pairs that hardly two share an expert.

    Returns:
        As `moe_align_block_size`, but for pairs that are left out, which have a block with expert -1.
    """
    num_pairs = topk_ids.numel()
    ids = known_experts(topk_ids, num_experts).int()
    sorted_token_ids = ids.new_full((num_pairs, block_size), num_pairs)
    sorted_token_ids[:, 0] = torch.arange(num_pairs, device=ids.device)
    expert_ids = torch.where(ids < num_experts, ids, -1)
    return sorted_token_ids.flatten(), expert_ids, ids.new_full((1,), num_pairs * block_size)
