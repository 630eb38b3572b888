"""The ways of a sparse layer against one pair at a time in float64, in outputs and gradients; Triton's interpreted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from kernels.interpreted import run_interpreted
from torch import Tensor

from tinyllm.experts.layer import LARGE_GROUP, experts_grouped_mm, experts_loop, experts_sorted, experts_torch
from tinyllm.experts.routing import topk_router

#: T, K, E, H, I.
SHAPES = [(1, 1, 1, 16, 16), (10, 2, 4, 24, 20), (33, 3, 7, 20, 36), (5, 2, 32, 16, 16), (70, 1, 2, 64, 48)]

Layer = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
WAYS = [experts_loop, experts_sorted, experts_grouped_mm, experts_torch]


def inputs(shape: tuple[int, int, int, int, int], seed: int = 0) -> list[Tensor]:
    """x, topk_weights, topk_ids, gate_up_proj and down_proj; one pair is left out, some experts may have none."""
    num_tokens, top_k, num_experts, hidden, inner = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    weights, ids = topk_router(normal(num_tokens, num_experts), top_k, True)
    if num_tokens > 1:
        ids[0, 0] = -1
    gate_up = normal(num_experts, 2 * inner, hidden) / hidden**0.5
    return [normal(num_tokens, hidden), weights, ids, gate_up, normal(num_experts, hidden, inner) / inner**0.5]


def pair_by_pair(x: Tensor, weights: Tensor, ids: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    rows = []
    for token, of_token, experts in zip(x, weights, ids.tolist(), strict=True):
        row = torch.zeros_like(token)
        for weight, e in zip(of_token, experts, strict=True):
            if e >= 0:
                gate, up = gate_up[e].chunk(2)
                row = row + weight * (down[e] @ (F.silu(gate @ token) * (up @ token)))
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layer", WAYS, ids=lambda way: way.__name__)
def test_outputs_and_gradients(layer: Layer, shape: tuple[int, int, int, int, int]) -> None:
    x, weights, ids, gate_up, down = inputs(shape)
    ours = [t.clone().requires_grad_() for t in (x, weights, gate_up, down)]
    exact = [t.double().requires_grad_() for t in (x, weights, gate_up, down)]
    out, wanted = layer(ours[0], ours[1], ids, *ours[2:]), pair_by_pair(exact[0], exact[1], ids, *exact[2:])
    assert (out - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    direction = torch.randn(wanted.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad(out, ours, direction.float())
    for gradient, expected in zip(got, torch.autograd.grad(wanted, exact, direction), strict=True):
        assert (gradient - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("layer", WAYS, ids=lambda way: way.__name__)
def test_the_order_of_tokens_and_who_else_is_there_change_nothing(layer: Layer) -> None:
    x, weights, ids, gate_up, down = inputs((40, 2, 8, 32, 16))
    out, order = layer(x, weights, ids, gate_up, down), torch.randperm(40, generator=torch.Generator().manual_seed(2))
    moved = layer(x[order], weights[order], ids[order], gate_up, down)
    alone = torch.cat([layer(x[i : i + 1], weights[i : i + 1], ids[i : i + 1], gate_up, down) for i in range(40)])
    for other in (moved[order.argsort()], alone):
        assert (other - out).abs().max() <= 1e-5 * out.abs().max()


@pytest.mark.parametrize("layer", WAYS, ids=lambda way: way.__name__)
def test_nan_in_a_token_and_in_experts_that_nobody_chose_stay_where_they_are(layer: Layer) -> None:
    x, weights, ids, gate_up, down = inputs((10, 2, 4, 16, 16))
    ids[:] = torch.tensor([0, 2])
    gate_up[1], down[3] = float("nan"), float("nan")
    clean = layer(x, weights, ids, gate_up, down)
    assert clean.isfinite().all()
    x[4] = float("nan")
    sick = layer(x, weights, ids, gate_up, down)
    others = [i for i in range(10) if i != 4]
    assert torch.equal(sick[others], clean[others])
    assert sick[4].isnan().all()


def test_the_engine_runs_small_groups_and_large_ones() -> None:
    for num_tokens in (1, LARGE_GROUP - 1, LARGE_GROUP, 3 * LARGE_GROUP):
        case = inputs((num_tokens, 2, 2, 16, 16))
        wanted = experts_loop(*case)
        assert (experts_torch(*case) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("hidden", [16, 18, 21])
@pytest.mark.parametrize("inner", [16, 18, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_engine_runs_experts_of_any_size(hidden: int, inner: int, dtype: torch.dtype) -> None:
    """torch's grouped product takes multiples of 16 bytes only."""
    x, weights, ids, gate_up, down = inputs((9, 2, 4, hidden, inner))
    wanted = experts_loop(x, weights, ids, gate_up, down)
    got = experts_torch(*(t.to(dtype) for t in (x, weights)), ids, *(t.to(dtype) for t in (gate_up, down)))
    assert (got - wanted).abs().max() <= (1e-5 if dtype == torch.float32 else 3e-2) * wanted.abs().max()


@pytest.mark.parametrize("layer", WAYS, ids=lambda way: way.__name__)
def test_pairs_whose_expert_is_not_there_add_nothing(layer: Layer) -> None:
    """An id of -1 does not wrap around to the last expert, and one past the end is no expert either."""
    x, weights, ids, gate_up, down = inputs((12, 2, 4, 16, 16))
    ids[:6, 1] = torch.tensor([-1, 4, 9, -1, 4, -7])
    ids[3] = -1
    kept = weights.masked_fill((ids < 0) | (ids >= 4), 0.0)
    wanted = layer(x, kept, ids.clamp(0, 3), gate_up, down)
    assert (layer(x, weights, ids, gate_up, down) - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert torch.equal(layer(x, weights, torch.full_like(ids, -1), gate_up, down), torch.zeros_like(x))


@pytest.mark.needs("triton")
def test_the_layer_on_the_kernel_and_the_engine_on_that() -> None:
    done = run_interpreted("-m", "experts.kernel_cases")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
