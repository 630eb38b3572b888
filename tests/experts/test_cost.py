"""The cost model against what really happens: bytes that processes write, experts that a layer touches."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from experts.ranks import on_ranks
from torch import Tensor

from tinyllm.experts.cost import (
    all_gather_bytes,
    all_reduce_bytes,
    all_to_all_bytes,
    touched_by_router,
    touched_experts,
)
from tinyllm.experts.layer import experts_sorted
from tinyllm.experts.parallel import ExpertParallel
from tinyllm.experts.plan import SparseShape, plan_ranks
from tinyllm.experts.routing import expert_counts, topk_router
from tinyllm.parallel.ranks import Ranks

T, K, E, H, INNER = 2048, 2, 8, 64, 4
COUNTER = Path("/proc/self/io")


def bytes_written() -> int:
    """Bytes that this process has handed to `write` and its like, sockets included, once they are at rest."""
    time.sleep(0.3)  # what a collective has sent last may still be on its way out
    return int(dict(line.split(": ") for line in COUNTER.read_text().splitlines())["wchar"])


def even_logits() -> Tensor:
    """[T, E]: token t wants the experts t and t + 1, so that all are chosen alike, by each rank's tokens too."""
    logits = torch.zeros(T, E)
    tokens = torch.arange(T)
    logits[tokens, tokens % E] = 2.0
    logits[tokens, (tokens + 1) % E] = 1.0
    return logits


def measure(ranks: Ranks) -> tuple[int, int, list[int]]:
    """What a sparse layer and what an all-reduce wrote, and how many rows each local expert had."""
    rows: list[int] = []

    def run(x: Tensor, weights: Tensor, ids: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        rows.extend(expert_counts(ids, len(gate_up)).tolist())
        return experts_sorted(x, weights, ids, gate_up, down)

    experts = SimpleNamespace(
        gate_up_proj=torch.zeros(E // ranks.world_size, 2 * INNER, H),
        down_proj=torch.zeros(E // ranks.world_size, H, INNER),
    )
    mlp = SimpleNamespace(layer=0, num_experts_per_tok=K, norm_topk_prob=True, experts=experts)
    x = torch.ones(T, H)
    ranks.all_reduce(torch.ones(1))  # they have connected
    start = bytes_written()
    ExpertParallel(run, ranks)(mlp, x, even_logits())
    layer = bytes_written()
    ranks.all_reduce(x)
    return layer - start, bytes_written() - layer, rows


@pytest.mark.skipif(not COUNTER.exists(), reason="only Linux counts what a process writes")
@pytest.mark.parametrize("world_size", [2, 4])
def test_the_bytes_that_ranks_send(world_size: int, tmp_path: Path) -> None:
    """Beyond the model there are the counts of rows and the headers of messages: under one percent here."""
    results = on_ranks(world_size, measure, tmp_path)
    layer, reduced = (sum(result[i] for result in results.values()) for i in (0, 1))
    size = (H, 4, world_size)
    predicted = all_to_all_bytes(T, K, *size) + all_gather_bytes(T, *size)
    assert predicted <= layer <= 1.01 * predicted
    assert all_reduce_bytes(T, *size) <= reduced <= 1.01 * all_reduce_bytes(T, *size)

    (plan,) = plan_ranks(SparseShape(E, K, H, INNER, 4), T, [world_size])
    for _, _, rows in results.values():
        assert len(rows) == plan.experts
        assert sum(rows) == plan.rows
        assert rows == [plan.rows_per_expert] * len(rows)
    sent_for_rows = layer / world_size - all_gather_bytes(T, *size) / world_size
    assert plan.bytes_sent == pytest.approx(sent_for_rows, rel=0.02)
    assert plan.bytes_sent_all_reduce == pytest.approx(reduced / world_size, rel=0.01)


@pytest.mark.parametrize("num_tokens", [1, 3, 16, 64])
def test_the_experts_that_a_batch_touches(num_tokens: int) -> None:
    """The law against a router that chooses at random, over many batches; and against one that chooses unevenly."""
    generator = torch.Generator().manual_seed(num_tokens)
    logits = torch.randn(500 * num_tokens, 16, generator=generator)
    _, ids = topk_router(logits, 3, True)
    mean = sum(len(batch.unique()) for batch in ids.split(num_tokens)) / 500
    assert touched_experts(num_tokens, 3, 16) == pytest.approx(mean, abs=0.25)
    assert touched_by_router([3 / 16] * 16, num_tokens) == pytest.approx(touched_experts(num_tokens, 3, 16))
    uneven = [1.0, 0.9, *[1.1 / 14] * 14]
    assert touched_by_router(uneven, num_tokens) <= touched_experts(num_tokens, 3, 16) + 1e-9


def test_a_plan_for_many_ranks() -> None:
    shape = SparseShape()
    plans = plan_ranks(shape, 1024)
    assert [plan.world_size for plan in plans] == [8, 16, 32, 64]
    for plan in plans:
        assert plan.experts * plan.world_size == 128
        assert plan.bytes_held * plan.world_size == 128 * 3 * 2048 * 768 * 2
        assert plan.touched <= plan.experts
        assert plan.bytes_read <= plan.bytes_held
        assert plan.rows == 1024 * 8 / plan.world_size
        assert (plan.bytes_sent < plan.bytes_sent_all_reduce) is (plan.world_size > shape.top_k)
    assert plans[0].bytes_sent > plans[-1].bytes_sent
    assert plan_ranks(shape, 1, [8])[0].touched == pytest.approx(1), "8 of 128 experts, one a rank"
    with pytest.raises(ValueError, match="12 ranks cannot share 128 experts evenly"):
        plan_ranks(shape, 1, [12])
