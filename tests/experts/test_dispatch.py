"""Router, dispatch, blocks and capacity against their definitions, over any ids: empty experts, one that takes all."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tinyllm.experts.align import align_single_pairs, moe_align_block_size
from tinyllm.experts.capacity import drop_over_capacity, expert_capacity
from tinyllm.experts.dispatch import permute, unpermute
from tinyllm.experts.routing import biased_topk_router, expert_counts, topk_router


@st.composite
def chosen_experts(draw: st.DrawFn) -> tuple[Tensor, int]:
    """[T, K] different experts a token, with ids that are not there among them, and E."""
    num_experts = draw(st.integers(1, 7))
    top_k = draw(st.integers(1, num_experts))
    favorites = draw(st.sampled_from([num_experts, top_k]))  # or one or few experts take all
    token = st.permutations(range(favorites)).map(lambda order: order[:top_k])
    rows = draw(st.lists(token, max_size=33))
    ids = torch.tensor(rows, dtype=torch.int64).reshape(len(rows), top_k)
    for place in draw(st.sets(st.integers(0, max(0, ids.numel() - 1)), max_size=3)):
        if ids.numel():
            ids.view(-1)[place] = draw(st.sampled_from([-1, num_experts, num_experts + 5]))
    return ids, num_experts


def is_there(ids: Tensor, num_experts: int) -> list[int]:
    """The pairs whose expert exists."""
    return [pair for pair, expert in enumerate(ids.flatten().tolist()) if 0 <= expert < num_experts]


@given(chosen_experts())
def test_permute_is_a_permutation_sorted_by_expert_and_unpermute_its_inverse(case: tuple[Tensor, int]) -> None:
    ids, num_experts = case
    num_tokens, top_k = ids.shape
    x = torch.arange(1.0, num_tokens + 1)[:, None] * torch.tensor([1.0, 100.0])
    permuted, pairs, counts = permute(x, ids, num_experts)
    assert sorted(pairs.tolist()) == is_there(ids, num_experts)
    experts = ids.flatten()[pairs].tolist()
    assert experts == sorted(experts)
    assert counts.tolist() == [experts.count(e) for e in range(num_experts)]
    assert torch.equal(permuted, x[pairs // top_k])

    weights = torch.arange(1.0, ids.numel() + 1).view(ids.shape)
    kept = torch.zeros(ids.numel()).index_fill(0, torch.tensor(is_there(ids, num_experts), dtype=torch.int64), 1.0)
    expected = x * (weights * kept.view(ids.shape)).sum(dim=1, keepdim=True)
    assert torch.allclose(unpermute(permuted, pairs, weights), expected)


@given(chosen_experts(), st.sampled_from([1, 2, 4, 5, 16]))
def test_blocks_hold_every_pair_once_beside_pairs_of_the_same_expert(case: tuple[Tensor, int], size: int) -> None:
    ids, num_experts = case
    sorted_ids, expert_ids, num_padded = moe_align_block_size(ids, size, num_experts)
    assert sorted_ids.dtype == expert_ids.dtype == num_padded.dtype == torch.int32
    assert len(sorted_ids) == len(expert_ids) * size >= int(num_padded)
    used, pad, seen = int(num_padded) // size, ids.numel(), []
    assert int(num_padded) == sum(math.ceil(n / size) * size for n in expert_counts(ids, num_experts).tolist())
    for number, (block, expert) in enumerate(zip(sorted_ids.view(-1, size).tolist(), expert_ids.tolist(), strict=True)):
        real = [pair for pair in block if pair != pad]
        assert all(ids.flatten()[pair] == expert for pair in real)
        assert bool(real) == (number < used)
        assert expert == -1 or number < used
        seen += real
    assert sorted(seen) == is_there(ids, num_experts)


@given(chosen_experts(), st.sampled_from([1, 4]))
def test_single_pairs_are_blocks_too(case: tuple[Tensor, int], size: int) -> None:
    ids, num_experts = case
    sorted_ids, expert_ids, num_padded = align_single_pairs(ids, size, num_experts)
    assert int(num_padded) == len(sorted_ids) == ids.numel() * size
    for pair, (block, expert) in enumerate(zip(sorted_ids.view(-1, size).tolist(), expert_ids.tolist(), strict=True)):
        assert block == [pair] + [ids.numel()] * (size - 1)
        assert expert == (ids.flatten()[pair] if pair in is_there(ids, num_experts) else -1)


@pytest.mark.parametrize("num_tokens", range(1, 34))
def test_odd_numbers_of_tokens_stay_with_their_expert(num_tokens: int) -> None:
    ids = torch.arange(num_tokens)[:, None] % 3
    sorted_ids, expert_ids, _ = moe_align_block_size(ids, 4, 3)
    for block, expert in zip(sorted_ids.view(-1, 4).tolist(), expert_ids.tolist(), strict=True):
        assert {pair % 3 for pair in block if pair < num_tokens} <= {expert}


def test_the_blocks_of_the_smallest_case_as_other_engines_have_them() -> None:
    sorted_ids, expert_ids, num_padded = moe_align_block_size(torch.zeros(4, 1, dtype=torch.int64), 16, 1)
    assert sorted_ids[:16].tolist() == [0, 1, 2, 3] + [4] * 12
    assert (expert_ids[0], int(num_padded)) == (0, 16)


@given(chosen_experts(), st.integers(1, 5))
def test_an_expert_takes_its_first_pairs_up_to_its_capacity(case: tuple[Tensor, int], capacity: int) -> None:
    ids, num_experts = case
    ids = torch.where((ids >= 0) & (ids < num_experts), ids, -1)
    places = dict.fromkeys(range(num_experts), capacity)
    expected = []
    for expert in ids.flatten().tolist():
        places[expert] = places.get(expert, 0) - 1
        expected.append(expert if places[expert] >= 0 else -1)
    before = ids.clone()
    assert drop_over_capacity(ids, num_experts, capacity).flatten().tolist() == expected
    assert torch.equal(ids, before)


def test_capacity_is_rounded_up_and_never_nothing() -> None:
    assert expert_capacity(10, 2, 4, 1.0) == 5
    assert expert_capacity(10, 2, 4, 1.25) == 7
    assert expert_capacity(3, 2, 4, 1.0) == 2
    assert expert_capacity(1, 1, 64, 1.0) == 1


def test_weights_are_normalized_only_where_the_config_says_so() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0], [5.0, 5.5, 4.0, 6.0], [1.0, 0.0, 3.0, 2.0]])
    probs = logits.double().softmax(dim=-1)
    for top_k in (1, 2, 4):
        weights, ids = topk_router(logits, top_k, norm_topk_prob=False)
        assert ids.tolist() == logits.argsort(dim=1, descending=True)[:, :top_k].tolist()
        assert torch.allclose(weights.double(), probs.gather(1, ids))
        normed, same = topk_router(logits, top_k, norm_topk_prob=True)
        assert torch.equal(ids, same)
        assert torch.allclose(normed.sum(dim=1), torch.ones(3))
    assert topk_router(logits.bfloat16(), 2, True)[0].dtype == torch.bfloat16


def test_the_softmax_is_float32_whatever_the_logits_are() -> None:
    logits = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    ours, _ = topk_router(logits, 8, norm_topk_prob=False)
    exact = logits.double().softmax(dim=-1).sort(dim=-1, descending=True).values
    assert torch.equal(ours, exact.bfloat16()) or (ours.double() - exact).abs().max() <= 2**-8


@pytest.mark.parametrize("norm_topk_prob", [True, False])
def test_a_row_of_nan_harms_nobody_else(norm_topk_prob: bool) -> None:
    logits = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    weights, ids = topk_router(logits, 3, norm_topk_prob)
    sick = logits.clone()
    sick[2] = float("nan")
    with_nan, with_nan_ids = topk_router(sick, 3, norm_topk_prob)
    others = [0, 1, 3, 4]
    assert torch.equal(with_nan[others], weights[others])
    assert torch.equal(with_nan_ids[others], ids[others])
    assert len(set(with_nan_ids[2].tolist())) == 3
    assert with_nan_ids.min() >= 0
    assert with_nan_ids.max() < 6


def test_a_bias_chooses_and_does_not_weigh() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0]])
    weights, ids = biased_topk_router(logits, 2, False, torch.tensor([5.0, 0.0, 0.0, 0.0]))
    assert ids.tolist() == [[0, 1]]
    assert torch.equal(weights, logits.softmax(dim=-1)[:, [0, 1]])
    plain = topk_router(logits, 2, True)
    none = biased_topk_router(logits, 2, True, torch.zeros(4))
    assert torch.equal(none[0], plain[0])
    assert torch.equal(none[1], plain[1])
