"""What a request may ask for: wrong values are refused by name, before anything runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.requests import make_request

from tinyllm.config import SamplingParams
from tinyllm.engine.sampler import Sampled, sample
from tinyllm.errors import RequestError
from tinyllm.sampling_params import LARGEST


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": "hot"},
        {"temperature": None},
        {"top_k": -1},
        {"top_k": 1.5},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0},
        {"repetition_penalty": math.inf},
        {"presence_penalty": math.nan},
        {"frequency_penalty": math.inf},
        {"repetition_penalty": 1e39},
        {"repetition_penalty": 1e-39},
        {"repetition_penalty": math.nan},
        {"presence_penalty": 1e39},
        {"presence_penalty": -1e39},
        {"frequency_penalty": 3.4e38},
        {"frequency_penalty": 10**400},
        {"logit_bias": {1: 1e39}},
        {"max_tokens": 0},
        {"max_tokens": 2.0},
        {"min_tokens": -1},
        {"min_tokens": 65},
        {"n": 0},
        {"n": "3"},
        {"seed": "luck"},
        {"logprobs": -1},
        {"logprobs": 0.5},
        {"stop": ("",)},
        {"stop": (3,)},
        {"stop": 3},
        {"stop": None},
        {"stop_token_ids": ("a",)},
        {"stop_token_ids": 1.5},
        {"logit_bias": [1, 2]},
        {"logit_bias": {"a": 1.0}},
        {"logit_bias": {1: math.inf}},
        {"logit_bias": {1: math.nan}},
        {"allowed_tokens": [1, 2]},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=next(iter(wrong))):
        SamplingParams(**wrong)  # type: ignore[arg-type]


def test_one_thing_or_several() -> None:
    params = SamplingParams(stop="end", stop_token_ids=7)  # type: ignore[arg-type]
    assert (params.stop, params.stop_token_ids) == (("end",), (7,))
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    SamplingParams(temperature=np.float32(0.5), top_k=np.int64(3), seed=np.int64(1))  # type: ignore[arg-type]


def test_the_bias_is_the_request_s_own() -> None:
    bias = {1: 2.0}
    params = SamplingParams(logit_bias=bias)
    bias[2] = 3.0
    assert params.logit_bias == {1: 2.0}


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": LARGEST},
        {"repetition_penalty": 1 / LARGEST},
        {"presence_penalty": LARGEST, "frequency_penalty": LARGEST},
        {"presence_penalty": -LARGEST, "frequency_penalty": -LARGEST},
        {"logit_bias": {3: LARGEST}, "presence_penalty": -LARGEST},
        {"logit_bias": {3: -1e39, 5: -math.inf}},
        {"logit_bias": {3: -LARGEST}, "frequency_penalty": LARGEST, "repetition_penalty": LARGEST},
    ],
    ids=str,
)
def test_the_largest_penalties_leave_a_token_to_choose(options: dict[str, object]) -> None:
    request = make_request(SamplingParams(**options), prompt=[1, 2], output=[3, 4, 3] * 100)  # type: ignore[arg-type]
    logits = torch.linspace(-100, 100, 20)
    (result,) = sample(logits[None], [request])
    assert isinstance(result, Sampled), result
