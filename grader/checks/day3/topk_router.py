"""Checks of `topk_router`, against a softmax in Python's floats, token by token."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from grader.checks.day3.pairs import drawn, form_problem, ids_problem, strided, tensors_problem, with_nan
from grader.framework import Case, Exercise, Observations, Prop, two_numbers

#: What is nothing to float32.
NOTHING = 1e-30


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Weights and ids, as they came."""
    return parts.topk_router(case["router_logits"], case["top_k"], case["norm_topk_prob"])


def judge(case: Case, observations: Observations) -> str | None:
    """The form first, then token by token."""
    logits, names = case["router_logits"], ("weights", "ids")
    problem = tensors_problem(observations, names)
    if problem:
        return problem
    weights, ids = observations
    shape = [len(logits), case["top_k"]]
    problem = ids_problem("ids", ids, shape) or form_problem("weights", weights, shape, logits.dtype)
    if problem:
        return problem
    for token, row in enumerate(logits.tolist()):
        problem = row_problem(case, row, ids[token].tolist(), weights[token])
        if problem:
            return f"token {token}: {problem}"
    return None


def row_problem(case: Case, logits: list[float], ids: list[int], weights: Tensor) -> str | None:
    """What is wrong with the experts and weights of one token."""
    if not all(0 <= expert < len(logits) for expert in ids):
        return f"one of its ids is no expert; they are 0 to {len(logits) - 1}"
    if len(set(ids)) < len(ids):
        return f"expected {len(ids)} different experts, got one of them twice"
    if math.isnan(sum(logits)):
        return None if bool(weights.isnan().all()) else "its logits are NaN, so its weights must be NaN; they are not"
    probs = softmax(logits)
    slack = 1e-5 + 2e-7 * abs(max(logits))  # of float32, relatively; a log-sum-exp has the size of the largest logit
    likeliest = sorted(range(len(probs)), key=lambda expert: -probs[expert])[: len(ids)]
    for best, expert in zip(likeliest, ids, strict=True):
        if abs(probs[best] - probs[expert]) > slack * probs[best] + NOTHING:
            return f"expected the experts {likeliest}, got {ids}"
    total = sum(probs[expert] for expert in ids) if case["norm_topk_prob"] else 1.0
    for expert, got in zip(ids, weights.tolist(), strict=True):
        expected = probs[expert] / total
        if not abs(got - expected) <= half_a_step(expected, weights.dtype) + slack * expected + NOTHING:
            wanted, came = two_numbers(expected, got)
            return f"expected the weight {wanted} for expert {expert}, got {came}"
    return None


def softmax(logits: list[float]) -> list[float]:
    """In double precision."""
    highest = max(logits)
    exps = [math.exp(logit - highest) for logit in logits]
    return [value / sum(exps) for value in exps]


def half_a_step(value: float, dtype: torch.dtype) -> float:
    """What rounding a number to a dtype once may change it by."""
    info = torch.finfo(dtype)
    return max(info.eps * 2.0 ** (math.frexp(value)[1] - 2), info.smallest_normal * info.eps / 2)


def describe(case: Case) -> str:
    """The sizes, and the logits where they are few."""
    logits = case["router_logits"]
    numbers = [[float(f"{value:.4g}") for value in row] for row in logits.tolist()]
    shown = f"{numbers}" if logits.numel() <= 24 else f"of shape {list(logits.shape)}"
    notes = "" if logits.is_contiguous() else f", strides {list(logits.stride())}"
    dtype = str(logits.dtype).removeprefix("torch.")
    return f"router_logits {shown} ({dtype}{notes}), top_k={case['top_k']}, norm_topk_prob={case['norm_topk_prob']}"


def case(logits: Any, top_k: int, norm: bool = False, dtype: str = "float32") -> Case:
    """Logits as a tensor or as lists."""
    tensor = logits if isinstance(logits, Tensor) else torch.tensor(logits, dtype=getattr(torch, dtype))
    return {"router_logits": tensor, "top_k": top_k, "norm_topk_prob": norm}


def close_calls(dtype: str, step: float) -> Tensor:
    """[6, 6]: logits one step apart, another one the best in each row, whose rounded probabilities are all equal."""
    return torch.full((6, 6), 0.125).add_(torch.eye(6) * step).to(getattr(torch, dtype))


def any_logits(
    rng: random.Random, norm: bool, dtypes: tuple[str, ...] = ("float32",), most: float = 8.0
) -> Iterator[Case]:
    for spread in (1.0, 4.0, most):
        num_experts = rng.choice((1, 2, 5, 16, 60, 128))
        logits = drawn((rng.randint(1, 9), num_experts), rng.getrandbits(32), rng.choice(dtypes), spread)
        yield case(rng.choice((logits, strided(logits))), rng.randint(1, min(num_experts, 8)), norm)


def any_rounding(rng: random.Random) -> Iterator[Case]:
    for norm in (True, False):
        yield from any_logits(rng, norm, ("float16", "bfloat16"), most=100.0)


def any_nan(rng: random.Random) -> Iterator[Case]:
    for norm in (True, False):
        num_tokens, num_experts = rng.randint(2, 8), rng.randint(2, 20)
        rows = rng.sample(range(num_tokens), rng.randint(1, num_tokens))
        logits = with_nan(drawn((num_tokens, num_experts), rng.getrandbits(32), spread=4), *rows)
        yield case(logits, rng.randint(1, min(num_experts, 8)), norm)


prop = partial(Prop, drive=drive, judge=judge, describe=describe)

EXERCISE = Exercise(
    name="topk_router",
    kind="function",
    twins=("tinyllm.experts.routing:biased_topk_router",),
    properties=(
        prop(
            "the K likeliest experts of each token, the likeliest first, with their shares of a softmax over all E",
            weight=0.75,
            fixed=[
                case([[0.0, 1.0, -1.0]], 1),
                case([[1.0, 0.5, 2.0, -1.0]], 2),
                case([[0.0, 0.25, 0.5], [3.0, 2.0, 2.5]], 2),
                case(drawn((5, 4), 1, spread=3), 4),
                case([[0.5], [-2.0], [0.0]], 1),
                case(strided(drawn((3, 130), 2, spread=6)), 8),
                case(torch.zeros(0, 5), 2),
            ],
            random=partial(any_logits, norm=False),
        ),
        prop(
            "with norm_topk_prob each token's weights are divided by their sum",
            weight=0.5,
            fixed=[
                case([[1.0, 0.5, 2.0, -1.0]], 2, norm=True),
                case([[0.0, 0.25, 0.5], [3.0, 2.0, 2.5], [-1.0, 1.0, 0.0]], 1, norm=True),
                case([[0.0, 0.25, 0.5], [3.0, 2.0, 2.5]], 3, norm=True),
                case(strided(drawn((6, 130), 3, spread=6)), 8, norm=True),
                case(torch.zeros(0, 5), 2, norm=True),
            ],
            random=partial(any_logits, norm=True),
        ),
        prop(
            "bfloat16, float16 and large logits lose nothing: it is float32 inside, rounded once at the end",
            weight=0.5,
            fixed=[
                case([[1.0, 0.5, 2.0, -1.0]], 2, dtype="bfloat16"),
                case([[200.0, 199.0, -200.0], [-300.0, -301.0, -299.0]], 2),
                case([[0.0, -200.0, -300.0], [-400.0, -200.0, 0.0]], 3, norm=True),
                case([[60000.0, 59968.0, -60000.0], [-60000.0, 1.0, 0.0]], 2, norm=True, dtype="float16"),
                case(close_calls("bfloat16", 2**-10), 1),
                case(close_calls("float16", 2**-13), 1),
                case(drawn((16, 8), 4, "bfloat16", spread=2), 4, norm=True),
                case(drawn((16, 8), 5, "float16", spread=2), 8, norm=True),
                case(drawn((4, 128), 6, "bfloat16", spread=4), 8),
            ],
            random=any_rounding,
        ),
        prop(
            "a row of NaN gets K different experts and weights of NaN, and no other row notices",
            weight=0.25,
            fixed=[
                case(with_nan(drawn((1, 4), 7), 0), 1),
                case(with_nan(drawn((3, 4), 8, spread=3), 1), 2),
                case(with_nan(drawn((3, 4), 8, spread=3), 1), 2, norm=True),
                case(with_nan(drawn((3, 5), 9, "bfloat16"), 0, 1, 2), 5, norm=True),
                case(with_nan(drawn((6, 40), 10, spread=3), 0, 5), 8),
            ],
            random=any_nan,
        ),
    ),
)
