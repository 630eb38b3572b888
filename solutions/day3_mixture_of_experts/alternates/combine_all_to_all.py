"""Other right ways to `combine_all_to_all`."""

import torch
import torch.distributed as dist
from torch import Tensor

from grader.mutants import alternate


@alternate
def shows_everybody_everything(
    expert_out: Tensor, sent: list[int], got: list[int], group: dist.ProcessGroup | None = None
) -> Tensor:
    """Every rank gathers the answers and splits of all, and takes out its own."""
    world_size, rank = dist.get_world_size(group), dist.get_rank(group)
    everything: list[tuple[Tensor, list[int]]] = [(expert_out, got)] * world_size
    dist.all_gather_object(everything, (expert_out, got), group=group)
    return torch.cat([answers.split(splits)[rank] for answers, splits in everything])


@alternate
def visits_one_after_the_other(
    expert_out: Tensor, sent: list[int], got: list[int], group: dist.ProcessGroup | None = None
) -> Tensor:
    """A letter with its answers to each other rank, and one from there; of two ranks the lower one sends first."""
    rank = dist.get_rank(group)
    answers = expert_out.contiguous().split(got)
    home = [expert_out.new_zeros(count, expert_out.shape[1]) for count in sent]
    home[rank] = answers[rank]
    for other in range(len(sent)):
        if rank < other:
            dist.send(answers[other], group_dst=other, group=group)
        if rank != other:
            dist.recv(home[other], group_src=other, group=group)
        if rank > other:
            dist.send(answers[other], group_dst=other, group=group)
    return torch.cat(home)
