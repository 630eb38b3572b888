"""The sparse MLP against its definition, one token and one expert at a time, and against transformers."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from tinyllm.experts.balance import load_balancing_loss
from tinyllm.experts.routing import expert_counts, topk_router
from tinyllm.model.moe import SparseMLP

HIDDEN, INNER = 10, 6


def sparse_mlp(num_experts: int, k: int, norm_topk_prob: bool = True) -> SparseMLP:
    torch.manual_seed(num_experts + k)
    layer = SparseMLP(HIDDEN, INNER, num_experts=num_experts, num_experts_per_tok=k, norm_topk_prob=norm_topk_prob)
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return layer


def one_token_at_a_time(layer: SparseMLP, x: Tensor) -> Tensor:
    """What the layer stands for, without any grouping."""
    rows = []
    for token in x:
        probabilities = (layer.gate.weight @ token).softmax(dim=0)
        chosen = probabilities.argsort(descending=True)[: layer.num_experts_per_tok].tolist()
        total = probabilities[chosen].sum() if layer.norm_topk_prob else 1.0
        row = torch.zeros(HIDDEN, dtype=x.dtype)
        for e in chosen:
            gate, up = layer.experts.gate_up_proj[e].split(INNER)
            answer = layer.experts.down_proj[e] @ (F.silu(gate @ token) * (up @ token))
            row = row + probabilities[e] / total * answer
        rows.append(row)
    return torch.stack(rows)


def assert_close(ours: Tensor, expected: Tensor) -> None:
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() <= 1e-6 + 1e-5 * expected.abs().max()


@pytest.mark.parametrize("num_tokens", [1, 2, 33])
@pytest.mark.parametrize("norm_topk_prob", [True, False], ids=["normalized", "as they are"])
@pytest.mark.parametrize(("num_experts", "k"), [(1, 1), (4, 1), (4, 2), (8, 2), (4, 4)])
def test_outputs_and_gradients(num_tokens: int, norm_topk_prob: bool, num_experts: int, k: int) -> None:
    layer = sparse_mlp(num_experts, k, norm_topk_prob)
    x, direction = torch.randn(num_tokens, HIDDEN, requires_grad=True), torch.randn(num_tokens, HIDDEN)
    exact, exact_x = deepcopy(layer).double(), x.detach().double().requires_grad_()
    ours, expected = layer(x), one_token_at_a_time(exact, exact_x)
    assert_close(ours, expected)
    gradients = torch.autograd.grad(ours, [x, *layer.parameters()], direction)
    wanted = torch.autograd.grad(expected, [exact_x, *exact.parameters()], direction.double())
    # The router's gradient can be a difference of large terms: with K = 1, normalized, it is 0 but for their rounding.
    # That of float32 stays below 6e-7 of the largest gradient, over many seeds and kinds of CPU.
    scale = max(float(gradient.abs().max()) for gradient in wanted)
    for gradient, exact_gradient in zip(gradients, wanted, strict=True):
        assert gradient.shape == exact_gradient.shape
        assert (gradient - exact_gradient).abs().max() <= 2e-6 * scale


def test_an_expert_that_no_token_chose() -> None:
    layer = sparse_mlp(4, 2)
    with torch.no_grad():
        layer.gate.weight[2] = -10.0  # x is positive below, so this expert's logit is the lowest
    x = torch.rand(30, HIDDEN) + 0.1
    out = layer(x)
    assert_close(out, one_token_at_a_time(layer, x))
    out.sum().backward()
    for weight in layer.experts.parameters():
        assert weight.grad is not None
        assert torch.equal(weight.grad[2], torch.zeros_like(weight.grad[2]))
        assert all(weight.grad[e].abs().max() > 0 for e in (0, 1, 3))


@torch.inference_mode()
def test_one_token_touches_only_its_own_experts() -> None:
    layer = sparse_mlp(8, 2)
    x = torch.randn(1, HIDDEN)
    expected = layer(x)
    _, chosen = topk_router(layer.gate(x), 2, True)
    for e in set(range(8)) - set(chosen[0].tolist()):
        layer.experts.gate_up_proj[e] = float("nan")
        layer.experts.down_proj[e] = float("nan")
    assert torch.equal(layer(x), expected)


@torch.inference_mode()
def test_the_order_of_the_tokens_does_not_matter() -> None:
    layer = sparse_mlp(8, 2)
    x, order = torch.randn(50, HIDDEN), torch.randperm(50)
    assert_close(layer(x[order]), layer(x)[order])


def test_it_runs_in_bfloat16_and_under_autocast() -> None:
    layer, x = sparse_mlp(4, 2), torch.randn(20, HIDDEN)
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(x)
    mixed.float().sum().backward()
    half = layer.to(torch.bfloat16)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    # A token near a tie may choose other experts in bfloat16; few are.
    for out in (mixed, half):
        assert ((out - expected).abs() < 0.1 * expected.abs().max()).float().mean() > 0.9


def test_routes_are_the_largest_probabilities_in_order() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0], [5.0, 5.5, 4.0, 6.0]])
    probabilities = logits.softmax(dim=-1)
    weights, experts = topk_router(logits, 2, norm_topk_prob=False)
    assert experts.tolist() == [[1, 2], [3, 1]]
    assert torch.equal(weights, probabilities.gather(1, experts))
    normalized, _ = topk_router(logits, 2, norm_topk_prob=True)
    assert torch.allclose(normalized.sum(dim=-1), torch.ones(2))
    assert torch.allclose(normalized[:, 0] / normalized[:, 1], weights[:, 0] / weights[:, 1])
    assert topk_router(logits.bfloat16(), 2, True)[0].dtype == torch.bfloat16


def test_counts() -> None:
    experts = torch.tensor([[0, 3], [3, 1], [3, 0], [0, 3]])
    assert expert_counts(experts, 5).tolist() == [3, 1, 0, 4, 0]


@pytest.mark.parametrize(("num_experts", "k"), [(4, 1), (8, 2), (8, 8)])
def test_the_load_balancing_loss_is_transformers(num_experts: int, k: int) -> None:
    logits = (3 * torch.randn(200, num_experts)).requires_grad_()
    ours, theirs = load_balancing_loss(logits, k), load_balancing_loss_func((logits,), num_experts, k)
    assert torch.allclose(ours, theirs, rtol=1e-5)
    assert_close(torch.autograd.grad(ours, logits)[0], torch.autograd.grad(theirs, logits)[0])


def test_the_load_balancing_loss_at_balance_and_when_all_choose_alike() -> None:
    even = 50 * torch.eye(4).repeat(5, 1) + 20 * torch.eye(4).roll(1, dims=1).repeat(5, 1)
    assert torch.allclose(load_balancing_loss(even, 1), torch.tensor(1.0))
    assert torch.allclose(load_balancing_loss(even, 2), torch.tensor(2.0))
    alike = torch.tensor([50.0, 0.0, 0.0, 0.0]).repeat(20, 1)
    assert torch.allclose(load_balancing_loss(alike, 1), torch.tensor(4.0))
    two_of_four = torch.tensor([50.0, 50.0, 0.0, 0.0]).repeat(20, 1)
    assert torch.allclose(load_balancing_loss(two_of_four, 2), torch.tensor(4.0)), "a second softmax would make it 2"


def test_following_the_loss_evens_out_the_load() -> None:
    torch.manual_seed(0)
    gate = torch.nn.Linear(HIDDEN, 8, bias=False)
    x = torch.randn(500, HIDDEN) + 1.0  # not centered, so some experts are the favorites of all
    # At a rate of 1 the busiest expert changes from step to step, and rounding decides which it is in the last one.
    optimizer = torch.optim.SGD(gate.parameters(), lr=0.1)

    def busiest() -> float:
        return float(expert_counts(topk_router(gate(x), 2, True)[1], 8).max()) / len(x)

    before = busiest()
    for _ in range(200):
        optimizer.zero_grad()
        load_balancing_loss(gate(x), 2).backward()
        optimizer.step()
    assert before > 0.5
    assert busiest() < 1.2 * 2 / 8
