"""Other right ways to `dispatch_all_to_all`."""

import torch
import torch.distributed as dist
from torch import Tensor

from grader.mutants import alternate


@alternate
def gathers_all_counts(
    permuted: Tensor, counts: Tensor, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor, list[int], list[int]]:
    """Every rank learns what all send to all, and takes its own columns."""
    world_size, rank = dist.get_world_size(group), dist.get_rank(group)
    everyone = [torch.zeros_like(counts) for _ in range(world_size)]
    dist.all_gather(everyone, counts, group=group)
    table = torch.stack(everyone).unflatten(1, (world_size, -1))  # [from, to, expert]
    totals = table.sum(dim=2)
    sent, got = totals[rank].tolist(), totals[:, rank].tolist()
    received = torch.zeros(sum(got), permuted.shape[1], dtype=permuted.dtype)
    dist.all_to_all_single(received, permuted.clone(memory_format=torch.contiguous_format), got, sent, group=group)
    return received, table[:, rank], sent, got


@alternate
def fills_up_to_the_longest(
    permuted: Tensor, counts: Tensor, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor, list[int], list[int]]:
    """Sends every rank as many rows as the largest share of all has, and cuts off what was filled up."""
    world_size = dist.get_world_size(group)
    shares = list(counts.chunk(world_size))
    came = [torch.zeros_like(share) for share in shares]
    dist.all_to_all(came, shares, group=group)
    sent, got = torch.stack(shares).sum(dim=1).tolist(), torch.stack(came).sum(dim=1).tolist()
    longest = [torch.zeros(1, dtype=torch.int64) for _ in shares]
    dist.all_gather(longest, torch.tensor([max(sent)]), group=group)
    filled = torch.nn.utils.rnn.pad_sequence(
        [*permuted.split(sent), permuted.new_zeros(max(torch.cat(longest).tolist()), permuted.shape[1])],
        batch_first=True,
    )[:-1]
    back = torch.zeros_like(filled)
    dist.all_to_all_single(back, filled, group=group)
    is_row = torch.arange(back.shape[1]) < torch.tensor(got)[:, None]
    return back[is_row], torch.stack(came), sent, got


@alternate
def visits_one_after_the_other(
    permuted: Tensor, counts: Tensor, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor, list[int], list[int]]:
    """Two letters to and from each other rank, the counts and then the rows; of two ranks the lower one sends first."""
    world_size, rank = dist.get_world_size(group), dist.get_rank(group)
    shares = counts.reshape(world_size, len(counts) // world_size)
    rows = permuted.contiguous().split(shares.sum(dim=1).tolist())
    came, blocks = shares.clone(), list(rows)
    for other in range(world_size):
        if rank < other:
            dist.send(shares[other], group_dst=other, group=group)
            dist.send(rows[other], group_dst=other, group=group)
        if rank != other:
            dist.recv(came[other], group_src=other, group=group)
            blocks[other] = permuted.new_zeros(sum(came[other].tolist()), permuted.shape[1])
            dist.recv(blocks[other], group_src=other, group=group)
        if rank > other:
            dist.send(shares[other], group_dst=other, group=group)
            dist.send(rows[other], group_dst=other, group=group)
    return torch.cat(blocks), came, [len(block) for block in rows], [len(block) for block in blocks]
