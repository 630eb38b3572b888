"""Dispatch and combine over two and three processes: equal to one, with ranks and experts that have nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from experts.ranks import on_ranks
from torch import Tensor

from tinyllm.experts.dispatch import permute, unpermute
from tinyllm.experts.exchange import combine_all_to_all, dispatch_all_to_all, local_expert_ids
from tinyllm.experts.layer import experts_loop
from tinyllm.experts.routing import topk_router
from tinyllm.parallel.ranks import Ranks

E, H, K = 6, 8, 2
#: Tokens of each rank: uneven, and none.
TOKENS = (5, 0, 9)


def inputs(rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, topk_weights and topk_ids of a rank; nobody chooses expert 4."""
    generator = torch.Generator().manual_seed(rank)
    logits = torch.randn(TOKENS[rank], E, generator=generator)
    logits[:, 4] = -100.0
    return torch.randn(TOKENS[rank], H, generator=generator), *topk_router(logits, K, True)


def weights() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(E, 2 * 4, H, generator=generator), torch.randn(E, H, 4, generator=generator)


def layer_on_a_rank(ranks: Ranks) -> list[float]:
    """The layer with E / W experts here, and how far its answers are from those of all experts in one process."""
    rank, world_size = ranks.rank, ranks.world_size
    x, topk_weights, topk_ids = inputs(rank)
    gate_up, down = weights()
    mine = slice(rank * E // world_size, (rank + 1) * E // world_size)
    permuted, pairs, counts = permute(x, topk_ids, E)
    received, received_counts, sent, got = dispatch_all_to_all(permuted, counts)
    order = local_expert_ids(received_counts).argsort(stable=True)
    local = torch.arange(E // world_size).repeat_interleave(received_counts.sum(dim=0))[:, None]
    answers = experts_loop(received[order], torch.ones(len(order), 1), local, gate_up[mine], down[mine])
    back = torch.empty_like(answers)
    back[order] = answers
    out = unpermute(combine_all_to_all(back, sent, got), pairs, topk_weights)
    expected = experts_loop(x, topk_weights, topk_ids, gate_up, down)
    return [float((out - expected).abs().max()) if len(x) else 0.0, float(len(received))]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_give_what_one_process_gives(world_size: int, tmp_path: Path) -> None:
    results = on_ranks(world_size, layer_on_a_rank, tmp_path)
    assert sorted(results) == list(range(world_size))
    for result in results.values():
        assert result[0] <= 1e-5, result
    assert sum(result[1] for result in results.values()) == K * sum(TOKENS[:world_size])
