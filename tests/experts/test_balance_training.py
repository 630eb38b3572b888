"""The lesson's training run: the load collapses without balancing, and with the loss or the bias it does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tinyllm.experts.balance import load_balancing_loss, update_expert_bias
from tinyllm.experts.training import NUM_EXPERTS, NUM_TOKENS, TOP_K, TrainingRun, train_sparse_layer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_last_tenth_of_the_steps_counts() -> None:
    counts = torch.tensor([[9, 1]] * 18 + [[2, 6]] * 2)
    run = TrainingRun(counts, torch.arange(20.0))
    assert run.load.tolist() == [0.5, 1.5]
    assert run.max_violation == 0.5
    assert run.error == 18.5


def test_without_balancing_two_experts_take_nearly_all() -> None:
    run = train_sparse_layer()
    assert run.counts.shape == (300, NUM_EXPERTS)
    assert (run.counts.sum(dim=1) == NUM_TOKENS * TOP_K).all()
    assert run.load.max() > 3.5
    assert run.load.sort().values[:-2].sum() < 0.5
    assert run.load.sum() == pytest.approx(NUM_EXPERTS)


def test_the_loss_and_the_bias_keep_the_load_even_and_the_layer_learns_more() -> None:
    collapsed = train_sparse_layer()
    for run in (train_sparse_layer(load_balancing_loss), train_sparse_layer(update_bias=update_expert_bias)):
        assert run.load.max() < 1.3
        assert run.load.min() > 0.7
        assert run.error < 0.85 * collapsed.error
        assert torch.equal(run.counts[0], collapsed.counts[0]), "all begin alike"


def test_the_load_does_not_hang_on_the_last_bits() -> None:
    """What another CPU rounds otherwise: here every bias and every loss is a little off."""

    def loss(router_logits: Tensor, top_k: int) -> Tensor:
        return load_balancing_loss(router_logits, top_k) * (1 + 1e-5)

    def bias(expert_bias: Tensor, counts: Tensor, update_rate: float) -> Tensor:
        return update_expert_bias(expert_bias, counts, update_rate * (1 + 1e-5))

    for run in (train_sparse_layer(loss), train_sparse_layer(update_bias=bias)):
        assert run.load.max() < 1.3


def test_a_seed_gives_the_same_run_again_and_what_is_passed_in_is_what_runs() -> None:
    rates = []

    def still(expert_bias: Tensor, counts: Tensor, update_rate: float) -> Tensor:
        rates.append((update_rate, int(counts.sum())))
        return expert_bias

    run, again = train_sparse_layer(num_steps=10), train_sparse_layer(update_bias=still, update_rate=0.5, num_steps=10)
    assert torch.equal(run.counts, again.counts)
    assert torch.equal(run.errors, again.errors)
    assert rates == [(0.5, NUM_TOKENS * TOP_K)] * 10
    assert not torch.equal(train_sparse_layer(num_steps=10, seed=1).counts, run.counts)
