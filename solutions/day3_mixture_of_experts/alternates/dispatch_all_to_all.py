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
    """Sends every rank as many rows as the largest share has, and cuts off what was filled up."""
    world_size = dist.get_world_size(group)
    shares = list(counts.chunk(world_size))
    came = [torch.empty_like(share) for share in shares]
    dist.all_to_all(came, shares, group=group)
    sent, got = [int(share.sum()) for share in shares], [int(share.sum()) for share in came]
    longest: list[int] = [0] * world_size
    dist.all_gather_object(longest, max(sent), group=group)
    full = permuted.new_zeros(world_size, max(longest), permuted.shape[1])
    for place, rows in zip(full, permuted.split(sent), strict=True):
        place[: len(rows)] = rows
    back = torch.empty_like(full)
    dist.all_to_all_single(back, full, group=group)
    return torch.cat([rows[:count] for rows, count in zip(back, got, strict=True)]), torch.stack(came), sent, got


@alternate
def sends_to_one_after_the_other(
    permuted: Tensor, counts: Tensor, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor, list[int], list[int]]:
    """Two letters to each other rank: the counts, and then the rows."""
    world_size, rank = dist.get_world_size(group), dist.get_rank(group)
    shares = counts.reshape(world_size, len(counts) // world_size)
    rows = permuted.split(shares.sum(dim=1).tolist())
    came, blocks = shares.clone(), list(rows)
    others = [other for other in range(world_size) if other != rank]
    letters = [dist.isend(shares[other].contiguous(), group_dst=other, group=group) for other in others]
    letters += [dist.isend(rows[other].contiguous(), group_dst=other, group=group, tag=1) for other in others]
    for other in others:
        dist.recv(came[other], group_src=other, group=group)
        blocks[other] = permuted.new_empty(int(came[other].sum()), permuted.shape[1])
        dist.recv(blocks[other], group_src=other, group=group, tag=1)
    for letter in letters:
        letter.wait()
    return torch.cat(blocks), came, [len(block) for block in rows], [len(block) for block in blocks]
