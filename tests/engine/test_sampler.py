"""Sampling against the distribution worked out by hand, token by token."""

from __future__ import annotations

import asyncio
import math
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.requests import make_request
from torch import Tensor

from tinyllm.engine import sampler
from tinyllm.engine.gumbel import gumbel_argmax
from tinyllm.engine.sampler import Sampled, filtered_logits, sample
from tinyllm.errors import GenerationError
from tinyllm.sampling_params import SamplingParams


def expected_probs(logits: list[float], params: SamplingParams) -> list[float]:
    """Temperature, top-k, top-p and min-p, with plain lists."""
    best = max(logits)
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    weights = [math.exp((value - best) / params.temperature) for value in logits]
    kept = order[: params.top_k or len(logits)]
    total = sum(weights[i] for i in kept)
    nucleus, mass = [], 0.0
    for i in kept:
        if mass >= params.top_p and params.top_p < 1:
            break
        nucleus.append(i)
        mass += weights[i] / total
    nucleus = [i for i in nucleus if weights[i] >= params.min_p * (1 - 1e-12)]
    total = sum(weights[i] for i in nucleus)
    return [weights[i] / total if i in nucleus else 0.0 for i in range(len(logits))]


LOGITS = st.lists(st.integers(-40, 40).map(lambda n: n / 4) | st.just(-math.inf), min_size=1, max_size=12).filter(
    lambda values: max(values) > -math.inf
)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([1e-300, 0.01, 0.5, 1.0, 100.0]),
    top_k=st.integers(0, 14) | st.just(10**30),
    top_p=st.sampled_from([1e-300, 1e-9, 0.13, 0.33, 0.77, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 1e-300, 0.013, 0.31, 1.0]),
)


def tokens_of(results: list[Sampled | GenerationError]) -> list[int]:
    """The tokens, where no request may have failed."""
    assert all(isinstance(result, Sampled) for result in results), results
    return [result.token_id for result in results if isinstance(result, Sampled)]


@given(LOGITS, PARAMS)
def test_probabilities(logits: list[float], params: SamplingParams) -> None:
    probs = filtered_logits(torch.tensor([logits]), [params]).softmax(dim=1)
    assert probs[0].tolist() == pytest.approx(expected_probs(logits, params), abs=1e-9)


@given(LOGITS, PARAMS, st.integers(-(2**63), 2**63 - 1))
def test_a_draw_never_takes_a_token_that_is_filtered_out(logits: list[float], params: SamplingParams, key: int) -> None:
    token = int(gumbel_argmax(filtered_logits(torch.tensor([logits]), [params]), [key]))
    assert expected_probs(logits, params)[token] > 0


def test_draws_follow_the_probabilities() -> None:
    count = 6000
    params = SamplingParams(temperature=1.0, seed=1)
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    requests = [replace(make_request(params), index=i) for i in range(count)]
    tokens = tokens_of(sample(logits.expand(count, 3), requests))
    for token, p in enumerate(expected_probs(logits[0].tolist(), params)):
        spread = 4 * math.sqrt(p * (1 - p) / count)  # four standard deviations
        assert abs(tokens.count(token) / count - p) < spread


def allow_even(output: tuple[int, ...]) -> Tensor:
    return torch.arange(30) % 2 == 0


COMPANY = [
    SamplingParams(),
    SamplingParams(temperature=0.7, top_k=3, seed=1),
    SamplingParams(temperature=2.0, seed=2),
    SamplingParams(temperature=1.0, top_p=0.5, seed=3),
    SamplingParams(temperature=1.5, min_p=0.2, seed=4),
    SamplingParams(temperature=1.5, top_k=9, top_p=0.9, min_p=0.01, seed=5),
    SamplingParams(repetition_penalty=1.7, presence_penalty=0.5, frequency_penalty=0.3),
    SamplingParams(temperature=1.1, logit_bias={3: 4.0, 5: -math.inf}, seed=6),
    SamplingParams(allowed_tokens=allow_even, logprobs=3),
    SamplingParams(temperature=0.9, min_tokens=9, logprobs=0, seed=7),
]


@given(st.permutations(range(len(COMPANY))), st.integers(0, 2**32))
def test_rows_do_not_disturb_each_other(order: list[int], seed: int) -> None:
    logits = torch.randn(len(COMPANY), 30, generator=torch.Generator().manual_seed(seed)) * 3
    before = logits.clone()
    requests = [make_request(p, prompt=[1, 2], output=[3, 4, 3], end_token_ids=[7]) for p in COMPANY]
    together = sample(logits[order], [requests[i] for i in order])
    assert together == [sample(logits[i : i + 1], [requests[i]])[0] for i in order]
    assert torch.equal(logits, before), "the logits belong to the caller"


def test_greedy_takes_the_likeliest_and_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_draw(*_: object) -> Tensor:
        raise AssertionError("a greedy request was drawn")

    monkeypatch.setattr(sampler, "gumbel_argmax", no_draw)
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, 0.0], [-torch.inf, -5.0, -6.0]])
    assert tokens_of(sample(logits, [make_request() for _ in range(3)])) == [1, 0, 1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "options", [{"temperature": 1e-12}, {"temperature": 5e-324}, {"top_k": 1}, {"top_p": 5e-324}], ids=str
)
def test_the_narrowest_settings_are_greedy(options: dict[str, float], seed: int) -> None:
    params = SamplingParams(**{"temperature": 1.0, "seed": seed, **options})  # type: ignore[arg-type]
    assert tokens_of(sample(torch.tensor([[5.0, 80.0, 79.0]]), [make_request(params)])) == [1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "broken", [[0.0, math.nan], [math.nan, math.nan], [0.0, math.inf], [-math.inf, -math.inf]], ids=str
)
def test_a_row_without_sense_is_an_error_for_its_request_alone(broken: list[float], temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=1, top_k=2, logprobs=1)
    logits = torch.tensor([[0.0, 50.0], broken, [50.0, 0.0]])
    first, failed, last = sample(logits, [make_request(params) for _ in range(3)])
    assert tokens_of([first, last]) == [1, 0]
    assert isinstance(failed, GenerationError)
    assert "NaN or infinity" in str(failed)


def shapeless(output: tuple[int, ...]) -> Tensor:
    return torch.ones(5, dtype=torch.bool)


def crashing(output: tuple[int, ...]) -> Tensor:
    raise KeyError("state")


def cancelled(output: tuple[int, ...]) -> Tensor:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"allowed_tokens": lambda output: torch.zeros(2, dtype=torch.bool)}, "no token is left"),
        ({"allowed_tokens": shapeless}, r"torch.bool \[5\]; it must return a bool tensor \[2\]"),
        ({"allowed_tokens": lambda output: [True, False]}, r"\[True, False\]; it must return a bool tensor \[2\]"),
        ({"allowed_tokens": crashing}, "allowed_tokens failed: KeyError: 'state'"),
        ({"allowed_tokens": cancelled}, "allowed_tokens failed: CancelledError"),
        ({"allowed_tokens": lambda output: sys.exit(3)}, "allowed_tokens failed: SystemExit: 3"),
        ({"logit_bias": {0: -math.inf, 1: -math.inf}}, "no token is left"),
    ],
)
def test_a_mask_that_fails_is_an_error_for_its_request_alone(options: dict[str, object], words: str) -> None:
    requests = [make_request(), make_request(SamplingParams(**options)), make_request()]  # type: ignore[arg-type]
    first, failed, last = sample(torch.tensor([[0.0, 1.0]] * 3), requests)
    assert tokens_of([first, last]) == [1, 1]
    assert isinstance(failed, GenerationError)
    with pytest.raises(GenerationError, match=words):
        raise failed
