"""Checks of `load_balancing_loss`: the definition in Python's own numbers, and the gradient in closed form."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor

from grader.checks.closeness import closeness_problem
from grader.framework import Case, Exercise, Observations, Prop, describe_case, generator, plain, short

STEP = 0.125  # between two logits of a token: no two are equal, and a half keeps all of them exactly


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """The loss as it came, and the gradient that it sends to the logits where the case asks for that."""
    logits = case["router_logits"]
    if not case.get("gradient"):
        return {"loss": plain(parts.load_balancing_loss(logits, case["top_k"]))}
    logits = logits.detach().requires_grad_()
    loss = parts.load_balancing_loss(logits, case["top_k"])
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        return {"grad": None}
    return {"grad": plain(torch.autograd.grad(loss.sum(), logits, allow_unused=True)[0])}


def judge(case: Case, observations: Observations) -> str | None:
    """Held against the definition, within the rounding of float32."""
    loss, grad = by_definition(case["router_logits"].tolist(), case["top_k"])
    if case.get("gradient"):
        if observations["grad"] is None:
            return "the loss sends no gradient to the logits: nothing can be learned from it"
        atol = 1e-4 * case["router_logits"].shape[1] / len(grad)  # the most that an entry can be is about E / T
        return closeness_problem("the gradient at the logits ([T, E])", grad, observations["grad"], rtol=0, atol=atol)
    got = observations["loss"]
    if isinstance(got, Tensor) and got.dtype is not torch.float32:
        return f"the loss should be float32, got {short(str(got.dtype))}"
    return closeness_problem("the loss", torch.tensor(loss), got, rtol=2e-5, atol=0)


def by_definition(rows: Sequence[Sequence[float]], top_k: int) -> tuple[float, Tensor]:
    """The loss, and its gradient [T, E]: an expert's share times E / T, through one token's softmax at a time."""
    num_tokens, num_experts = len(rows), len(rows[0])
    share, mean_prob, probs = [0.0] * num_experts, [0.0] * num_experts, []
    for row in rows:
        highest = max(row)
        powers = [math.exp(logit - highest) for logit in row]
        probs.append([power / sum(powers) for power in powers])
        for expert in sorted(range(num_experts), key=row.__getitem__)[-top_k:]:
            share[expert] += 1 / num_tokens
        for expert, prob in enumerate(probs[-1]):
            mean_prob[expert] += prob / num_tokens
    loss = num_experts * sum(s * p for s, p in zip(share, mean_prob, strict=True))
    expected_share = [sum(s * p for s, p in zip(share, row, strict=True)) for row in probs]
    grad = [
        [num_experts / num_tokens * prob * (share[expert] - expected) for expert, prob in enumerate(row)]
        for row, expected in zip(probs, expected_share, strict=True)
    ]
    return loss, torch.tensor(grad, dtype=torch.float64)


# ---------------------------------------------------------------- cases


def given(rows: Sequence[Sequence[float]], top_k: int, *, gradient: bool = False) -> Case:
    """Logits written out."""
    return case_of(torch.tensor(rows, dtype=torch.float32), top_k, gradient)


def case_of(router_logits: Tensor, top_k: int, gradient: bool = False) -> Case:
    return {"router_logits": router_logits, "top_k": top_k} | ({"gradient": True} if gradient else {})


def drawn(
    num_tokens: int,
    num_experts: int,
    top_k: int,
    *,
    crowd: int = 0,
    level: float = 0,
    step: float = STEP,
    dtype: torch.dtype = torch.float32,
    strided: bool = False,
    gradient: bool = False,
    rng: random.Random | None = None,
) -> Case:
    """Each token's logits are 0, 1, 2, ... steps in an order of its own.

    Args:
        crowd: so many experts are all tokens' likeliest ones.
        level: is added to all logits, which changes no probability.
        step: between two logits of a token; where it is large, the smallest probabilities are 0 and K must be small.
        strided: tokens lie side by side in memory, and experts one below the other.
    """
    gen = generator(rng or random.Random(num_tokens * num_experts))
    ranks = torch.rand(num_tokens, num_experts, generator=gen)
    ranks[:, :crowd] += 1
    logits = (ranks.argsort(dim=1).argsort(dim=1) * step + level).to(dtype)
    return case_of(logits.T.contiguous().T if strided else logits, top_k, gradient)


def describe(case: Case) -> str:
    """The logits and K; numbers only where they are few."""
    return describe_case({name: case[name] for name in ("router_logits", "top_k")})


def any_logits(rng: random.Random) -> Iterator[Case]:
    for _ in range(4):
        num_experts = rng.randint(2, 24)
        sizes = rng.randint(1, 40), num_experts, rng.randint(1, num_experts)
        yield drawn(*sizes, crowd=rng.randint(0, num_experts), rng=rng)


def any_gradient(rng: random.Random) -> Iterator[Case]:
    for case in any_logits(rng):
        yield {**case, "gradient": True}


prop = partial(Prop, drive=drive, judge=judge, describe=describe)

EXERCISE = Exercise(
    name="load_balancing_loss",
    kind="function",
    properties=(
        prop(
            "tokens that are spread evenly cost K, and tokens that choose alike with certainty cost E",
            weight=0.5,
            fixed=[
                given([[1, 0], [0, 1]], 1),
                given([[40, 0, 0], [0, 40, 0], [0, 0, 40]], 1),
                given([[1, 2, 3], [2, 3, 1], [3, 1, 2]], 2),
                given([[1, 1, 1, 1]] * 2, 2),  # any two of four: they cost the same
                given([[0, 40, 1, 2]] * 3, 1),
                given([[0, 40, 1, 40.5]] * 5, 2),
            ],
        ),
        prop(
            "it is E times the sum of share times mean probability, for any logits and any K",
            weight=0.75,
            fixed=[
                given([[0, 1]], 1),
                given([[0, 1, 2]], 2),
                given([[0, 1, 2], [3, 1, 2]], 2),
                drawn(5, 4, 1, crowd=1),
                drawn(7, 6, 3),
                drawn(6, 5, 5),
                drawn(40, 8, 2, crowd=5),
                drawn(9, 128, 8, crowd=12),
            ],
            random=any_logits,
        ),
        prop(
            "its gradient goes through the probabilities, and takes from the experts that are chosen most",
            weight=0.5,
            fixed=[
                given([[0, 1]], 1, gradient=True),
                given([[0, 1, 2], [3, 1, 2]], 2, gradient=True),
                drawn(5, 4, 1, crowd=1, gradient=True),
                drawn(7, 6, 3, gradient=True),
                drawn(40, 8, 2, crowd=5, gradient=True),
                drawn(6, 5, 5, gradient=True),
            ],
            random=any_gradient,
        ),
        prop(
            "the softmax and the loss are in float32, whatever the logits' dtype, size and strides",
            weight=0.25,
            fixed=[
                drawn(2, 3, 1, dtype=torch.bfloat16),
                drawn(3, 6, 2, dtype=torch.float16),
                drawn(3, 4, 2, level=200),
                drawn(3, 4, 2, level=-200),
                drawn(3, 32, 2, step=4),
                drawn(4, 6, 3, strided=True),
            ],
        ),
    ),
)
