"""Sampling against the distribution worked out by hand, token by token."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.config import SamplingParams
from tinyllm.engine.sampler import draw, filtered_probs, sample
from tinyllm.errors import RequestError


def expected_probs(logits: list[float], params: SamplingParams) -> list[float]:
    """Temperature, then top-k, then top-p, with plain lists."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    weights = [math.exp((value - max(logits)) / params.temperature) for value in logits]
    kept = order[: params.top_k or len(logits)]
    total = sum(weights[i] for i in kept)
    nucleus, mass = [], 0.0
    for i in kept:
        if mass >= params.top_p:
            break
        nucleus.append(i)
        mass += weights[i] / total
    total = sum(weights[i] for i in nucleus)
    return [weights[i] / total if i in nucleus else 0.0 for i in range(len(logits))]


LOGITS = st.lists(st.integers(-40, 40).map(lambda n: n / 4), min_size=1, max_size=12)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.01, 0.5, 1.0, 3.0]),
    top_k=st.integers(0, 14),
    top_p=st.sampled_from([1e-9, 0.1, 0.33, 0.77, 0.95, 1.0]),
)


@given(LOGITS, PARAMS)
def test_probabilities(logits: list[float], params: SamplingParams) -> None:
    probs, token_ids = filtered_probs(torch.tensor([logits]), [params])
    by_token = torch.zeros(len(logits), dtype=probs.dtype).scatter(0, token_ids[0], probs[0])
    assert by_token.tolist() == pytest.approx(expected_probs(logits, params), abs=1e-9)


@given(LOGITS, PARAMS, st.floats(0, 1, exclude_max=True))
def test_a_draw_never_takes_a_token_that_is_filtered_out(logits: list[float], params: SamplingParams, u: float) -> None:
    (token,) = sample(torch.tensor([logits]), [params], [u])
    assert expected_probs(logits, params)[token] > 0


def test_draws_follow_the_probabilities() -> None:
    params = SamplingParams(temperature=1.0)
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    count = 6000
    tokens = sample(logits.expand(count, 3), [params] * count, [draw(1, 0, i) for i in range(count)])
    for token, p in enumerate(expected_probs(logits[0].tolist(), params)):
        spread = 4 * math.sqrt(p * (1 - p) / count)  # four standard deviations
        assert abs(tokens.count(token) / count - p) < spread


def test_rows_do_not_disturb_each_other() -> None:
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    params = [
        SamplingParams(),
        SamplingParams(temperature=0.7, top_k=3),
        SamplingParams(temperature=2.0),
        SamplingParams(temperature=1.0, top_p=0.5),
        SamplingParams(),
    ]
    draws = [0.1, 0.5, 0.9, 0.3, 0.2]
    together = sample(logits, params, draws)
    alone = [sample(logits[i : i + 1], params[i : i + 1], draws[i : i + 1])[0] for i in range(5)]
    assert together == alone
    assert together[0] == int(logits[0].argmax())


def test_a_temperature_near_zero_is_greedy_without_overflow() -> None:
    logits = torch.tensor([[5.0, 80.0, 79.0]])
    assert sample(logits, [SamplingParams(temperature=1e-12)], [0.999]) == [1]


def test_nan_is_an_error_not_a_token() -> None:
    with pytest.raises(FloatingPointError, match="NaN"):
        sample(torch.tensor([[0.0, float("nan")]]), [SamplingParams()], [0.0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"max_tokens": 0},
        {"n": 0},
        {"stop": ("",)},
        {"stop": (3,)},
    ],
)
def test_parameters_out_of_range_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=next(iter(wrong))):
        SamplingParams(**wrong)  # type: ignore[arg-type]
