"""Expert parallelism's two exchanges: send each pair's row to the rank of its expert, and the answer back.

Rank r of W holds the experts r * E / W to (r + 1) * E / W - 1. Both are collectives: every rank has to call them, also
one that has no token, or the others wait for it until the group's timeout.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def dispatch_all_to_all(
    permuted: Tensor, counts: Tensor, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor, list[int], list[int]]:
    """Send rows that are sorted by expert to the ranks that hold the experts.

    How many rows go where differs from rank to rank and may be none, so the counts are exchanged first.

    Args:
        permuted: [n, H], this rank's rows in the order of experts, of `permute`.
        counts: [E] int64, how many of them each expert has; E is a multiple of W.
        group: the ranks; all of the process by default.

    Returns:
        received: [m, H], the rows for this rank's experts: all of rank 0 in the order of experts, then all of rank 1.
        received_counts: [W, E / W], how many rows each rank sent for each of this rank's experts.
        sent, got: how many rows went to each rank and came from it, what `combine_all_to_all` takes.
    """
    world_size = dist.get_world_size(group)
    sent_counts = counts.view(world_size, -1)
    received_counts = torch.empty_like(sent_counts)
    dist.all_to_all_single(received_counts, sent_counts, group=group)
    sent, got = sent_counts.sum(dim=1).tolist(), received_counts.sum(dim=1).tolist()
    received = permuted.new_empty(sum(got), permuted.shape[1])
    dist.all_to_all_single(received, permuted.contiguous(), got, sent, group=group)
    return received, received_counts, sent, got


def combine_all_to_all(
    expert_out: Tensor, sent: list[int], got: list[int], group: dist.ProcessGroup | None = None
) -> Tensor:
    """Send the answers back to the ranks that the rows came from: `dispatch_all_to_all` the other way round.

    Args:
        expert_out: [m, H], in the order in which the rows were received.
        sent, got: of `dispatch_all_to_all`.

    Returns:
        [n, H], in the order of `permuted`.
    """
    back = expert_out.new_empty(sum(sent), expert_out.shape[1])
    dist.all_to_all_single(back, expert_out.contiguous(), sent, got, group=group)
    return back


def local_expert_ids(received_counts: Tensor) -> Tensor:
    """[W, E / W] counts of rows received -> [m]: which of this rank's experts each row is for, from 0."""
    experts = torch.arange(received_counts.shape[1], device=received_counts.device).expand_as(received_counts)
    return experts.flatten().repeat_interleave(received_counts.flatten())
