"""Masks, biases and penalties on one row: the repetition penalty against transformers, the others by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.requests import make_request
from transformers import RepetitionPenaltyLogitsProcessor

from tinyllm.engine.logits_processors import (
    add_bias,
    ban,
    keep_allowed,
    penalize_output,
    penalize_repetition,
    process_logits,
)
from tinyllm.sampling_params import SamplingParams

ROW = st.lists(st.floats(-50, 50, width=32) | st.just(-math.inf), min_size=8, max_size=8)
TOKENS = st.lists(st.integers(0, 7), min_size=1, max_size=20)


@given(ROW, TOKENS, st.floats(0.1, 10))
def test_repetition_penalty(row: list[float], tokens: list[int], penalty: float) -> None:
    logits = torch.tensor(row)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([tokens]), logits[None].clone())[0]
    assert torch.equal(penalize_repetition(logits, tokens, penalty), theirs)


@given(ROW, st.lists(st.integers(0, 7), max_size=20), st.floats(-2, 2), st.floats(-2, 2))
def test_presence_and_frequency_penalty(row: list[float], output: list[int], presence: float, frequency: float) -> None:
    expected = [
        value - (presence if token in output else 0) - frequency * output.count(token)
        for token, value in enumerate(row)
    ]
    got = penalize_output(torch.tensor(row), output, presence, frequency)
    assert got.tolist() == pytest.approx(expected, abs=1e-4)


def test_bias_ban_and_mask() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert add_bias(logits, {3: -math.inf, 0: 2.5}).tolist() == [2.5, 1.0, 2.0, -math.inf]
    assert ban(logits, [1, 2]).tolist() == [0.0, -math.inf, -math.inf, 3.0]
    assert ban(logits, []).tolist() == logits.tolist()
    assert keep_allowed(logits, logits > 1).tolist() == [-math.inf, -math.inf, 2.0, 3.0]
    assert logits.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_request_is_processed_in_order() -> None:
    seen: list[tuple[int, ...]] = []

    def allowed(output: tuple[int, ...]) -> torch.Tensor:
        seen.append(output)
        return torch.tensor([True, True, True, False, True])

    params = SamplingParams(
        allowed_tokens=allowed,
        logit_bias={0: 1.0},
        repetition_penalty=2.0,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        min_tokens=3,
    )
    request = make_request(params, prompt=[0], output=[1, 1], end_token_ids=[4])
    # 0: bias, then the penalty for a token of the prompt; 1: a negative logit in the output twice
    expected = [(3.0 + 1.0) / 2, -1.0 * 2 - 0.5 - 2 * 0.25, 7.0, -math.inf, -math.inf]
    assert process_logits(torch.tensor([3.0, -1.0, 7.0, 9.0, 9.0]), request).tolist() == expected
    assert seen == [(1, 1)]


def test_the_end_is_allowed_once_there_are_enough_tokens() -> None:
    params = SamplingParams(min_tokens=2, max_tokens=5)
    logits = torch.zeros(3)
    barred = process_logits(logits, make_request(params, output=[1], end_token_ids=[2]))
    assert barred.tolist() == [0.0, 0.0, -math.inf]
    assert process_logits(logits, make_request(params, output=[1, 1], end_token_ids=[2])).tolist() == [0.0] * 3
