"""Balancing, the law of touched experts and placement, against simulation and brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.experts.balance import load_balancing_loss, max_violation, update_expert_bias
from tinyllm.experts.cost import all_reduce_bytes, all_to_all_bytes, touched_by_router, touched_experts
from tinyllm.experts.placement import place_experts
from tinyllm.experts.routing import biased_topk_router, expert_counts


def test_the_bias_goes_down_where_there_is_too_much_and_does_not_drift() -> None:
    bias = torch.zeros(4)
    new = update_expert_bias(bias, torch.tensor([10, 2, 2, 2]), 0.5)
    assert new.tolist() == [-0.75, 0.25, 0.25, 0.25]
    assert torch.equal(bias, torch.zeros(4))
    assert torch.equal(update_expert_bias(new, torch.tensor([4, 4, 4, 4]), 0.5), new)


def test_counts_that_a_float_cannot_hold_are_compared_exactly() -> None:
    counts = torch.tensor([2**24 + 1, 2**24, 2**24, 2**24 - 1])
    assert update_expert_bias(torch.zeros(4), counts, 0.5).tolist() == [-0.5, 0.0, 0.0, 0.5]
    few = torch.tensor([301, 300, 299, 300])
    new = update_expert_bias(torch.zeros(4, dtype=torch.bfloat16), few, 0.5)
    assert new.dtype == torch.bfloat16
    assert new.tolist() == [-0.5, 0.0, 0.5, 0.0]


def test_following_the_bias_evens_out_the_load() -> None:
    generator = torch.Generator().manual_seed(0)
    favor = torch.tensor([2.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0])  # two experts are the favorites of all
    bias = torch.zeros(8)

    def counts() -> torch.Tensor:
        logits = torch.randn(2000, 8, generator=generator) + favor
        return expert_counts(biased_topk_router(logits, 2, True, bias)[1], 8)

    before = max_violation(counts())
    for _ in range(300):
        bias = update_expert_bias(bias, counts(), 0.002)
    assert before > 1.0
    assert max_violation(counts()) < 0.3


def test_the_gradient_of_the_loss_takes_from_the_expert_that_has_most() -> None:
    logits = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([2.0, 0.0, 0.0, 0.0])
    logits.requires_grad_()
    load_balancing_loss(logits, 1).backward()
    assert logits.grad is not None
    pushes = logits.grad.sum(dim=0)
    assert pushes[0] > 0
    assert (pushes[1:] < 0).all()


@pytest.mark.parametrize(("num_experts", "top_k"), [(8, 2), (128, 8)])
def test_the_law_of_touched_experts_is_what_a_fair_router_does(num_experts: int, top_k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for num_tokens in (1, 6, 32):
        draws = torch.rand(400, num_tokens, num_experts, generator=generator).topk(top_k).indices
        seen = [len(draw.unique()) for draw in draws]
        law = touched_experts(num_tokens, top_k, num_experts)
        assert sum(seen) / len(seen) == pytest.approx(law, rel=0.05)
        assert touched_by_router([top_k / num_experts] * num_experts, num_tokens) == pytest.approx(law)


def test_bytes_between_ranks() -> None:
    assert all_to_all_bytes(100, 2, 64, 4, world_size=1) == 0
    assert all_to_all_bytes(100, 2, 64, 4, world_size=4) == 2 * 150 * 64 * 4
    assert all_reduce_bytes(100, 64, 4, world_size=2) == 2 * 100 * 64 * 4


@given(st.data())
def test_every_expert_has_a_place_and_no_rank_has_it_twice(data: st.DataObject) -> None:
    world_size, num_experts = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 20))
    most = min(12, num_experts * (world_size - 1))
    extra = data.draw(st.integers(0, most).filter(lambda n: (num_experts + n) % world_size == 0))
    counts = data.draw(st.lists(st.integers(0, 1000), min_size=num_experts, max_size=num_experts))
    placement = place_experts(counts, world_size, extra)
    assert all(len(set(rank)) == len(rank) == (num_experts + extra) // world_size for rank in placement.ranks)
    assert {expert for rank in placement.ranks for expert in rank} == set(range(num_experts))
    assert sum(placement.load(counts)) == pytest.approx(sum(counts))
    assert placement.imbalance(counts) >= 1 - 1e-9


def test_copies_of_the_busiest_expert_are_on_different_ranks_at_the_size_of_a_cluster() -> None:
    counts = [1000.0, 900.0, 800.0, *[10.0] * 253]
    placement = place_experts(counts, world_size=32, num_redundant=32)
    assert all(len(set(rank)) == len(rank) == 9 for rank in placement.ranks)
    assert sum(0 in rank for rank in placement.ranks) > 5


def test_redundant_slots_help_where_one_expert_has_most() -> None:
    counts = [100, 10, 10, 10, 10, 10, 10, 10]
    even = [place_experts(counts, 4, slots).imbalance(counts) for slots in (0, 4, 8)]
    assert even[0] > 2
    assert even == sorted(even, reverse=True)
    assert even[2] < 1.3


def test_256_experts_and_32_more_over_32_ranks() -> None:
    ranks = place_experts([1.0] * 256, 32, 32).ranks
    assert all(len(set(rank)) == 9 for rank in ranks)


@pytest.mark.parametrize(("extra", "words"), [(1, "3 more redundant slots would"), (28, "more than a copy of every")])
def test_slots_that_do_not_fit_are_refused(extra: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        place_experts([1.0] * 8, 4, extra)
