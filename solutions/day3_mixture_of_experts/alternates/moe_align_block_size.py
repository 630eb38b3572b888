"""Other right ways to `moe_align_block_size`."""

import torch
from torch import Tensor

from grader.mutants import alternate


@alternate
def number_in_the_queue(topk_ids: Tensor, block_size: int, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Without a sort: a pair's row is where its expert begins and how many of the expert's pairs come before it."""
    num_pairs = topk_ids.numel()
    size = num_pairs + min(num_experts, num_pairs) * (block_size - 1)
    size += -size % block_size
    mine = topk_ids.reshape(-1, 1) == torch.arange(num_experts)  # [T * K, E]
    num_blocks = (mine.sum(dim=0) + block_size - 1) // block_size
    begins = (num_blocks.cumsum(dim=0) - num_blocks) * block_size
    rows = ((begins + mine.cumsum(dim=0) - 1) * mine).sum(dim=1)
    rows[~mine.any(dim=1)] = size
    sorted_token_ids = torch.full((size + 1,), num_pairs, dtype=torch.int32)
    sorted_token_ids[rows] = torch.arange(num_pairs, dtype=torch.int32)
    starts, in_use = torch.arange(0, size, block_size), num_blocks.sum().view(1) * block_size
    expert_ids = (starts[:, None] >= begins).sum(dim=1) - 1
    expert_ids = torch.where(starts < in_use, expert_ids, -1)
    return sorted_token_ids[:-1], expert_ids.int(), in_use.int()


@alternate
def padding_sorted_too(topk_ids: Tensor, block_size: int, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """One sort for all: padding is a pair of its expert too, and what nobody needs goes to the end."""
    num_pairs = topk_ids.numel()
    num_blocks = (num_pairs + min(num_experts, num_pairs) * (block_size - 1) + block_size - 1) // block_size
    experts = torch.arange(num_experts)
    ids = topk_ids.flatten().to(torch.int64)
    ids = ids.masked_fill((ids < 0) | (ids >= num_experts), num_experts)
    counts = torch.nn.functional.one_hot(ids, num_experts + 1).sum(dim=0)[:num_experts]
    needed = torch.arange(block_size) < (-counts % block_size)[:, None]
    padding = torch.where(needed, experts[:, None], num_experts).flatten()
    owners, order = torch.cat((ids, padding, padding.new_full((block_size,), num_experts))).sort(stable=True)
    rows = order.masked_fill((order >= num_pairs) | (owners == num_experts), num_pairs)[: num_blocks * block_size]
    expert_ids = owners[: num_blocks * block_size : block_size]
    expert_ids = expert_ids.masked_fill(expert_ids == num_experts, -1)
    in_use = (counts + -counts % block_size).sum(dim=0, keepdim=True)
    return rows.to(torch.int32), expert_ids.to(torch.int32), in_use.to(torch.int32)


@alternate
def expert_by_expert(topk_ids: Tensor, block_size: int, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """A loop over the experts that knows no number of a tensor: the row to go on with is one itself."""
    num_pairs = topk_ids.numel()
    num_blocks = -(-(num_pairs + min(num_experts, num_pairs) * (block_size - 1)) // block_size)
    flat, size = topk_ids.flatten(), num_blocks * block_size
    pairs, blocks = torch.arange(num_pairs), torch.arange(num_blocks)
    rows = torch.full((num_pairs,), size)
    expert_ids = torch.full((num_blocks,), -1, dtype=torch.int32)
    begin = torch.tensor([0])
    for expert in range(num_experts):
        mine = flat == expert
        rows = torch.where(mine, begin + mine.cumsum(0) - 1, rows)
        end = begin + (mine.sum() + block_size - 1) // block_size * block_size
        expert_ids[(blocks * block_size >= begin) & (blocks * block_size < end)] = expert
        begin = end
    sorted_token_ids = torch.full((size + 1,), num_pairs, dtype=torch.int32)
    sorted_token_ids[rows] = pairs.int()
    return sorted_token_ids[:size], expert_ids, begin.int()
