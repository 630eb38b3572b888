"""Log-probabilities: from the model's own logits, whatever the request does to them before it draws."""

from __future__ import annotations

import math

import pytest
import torch
from support.models import dense_logits, make_engine, tiny_model
from support.requests import make_request

from tinyllm.engine.logprobs import token_logprobs
from tinyllm.engine.sampler import Sampled, sample
from tinyllm.sampling_params import SamplingParams


def test_values_ranks_and_order() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]]).log()  # log 0 = -inf: never drawn
    logits[1] = 7.0
    first, second = token_logprobs(logits, [2, 3], [3, 2])
    assert first.logprob == pytest.approx(math.log(2 / 9))
    assert first.rank == 3
    assert [token for token, _ in first.top] == [1, 3, 2], "ties by token id"
    assert [value for _, value in first.top] == pytest.approx([math.log(3 / 9), math.log(3 / 9), math.log(2 / 9)])
    assert (second.logprob, second.rank) == (pytest.approx(math.log(1 / 4)), 1)
    assert [token for token, _ in second.top] == [0, 1]


def test_they_are_of_the_unmodified_logits() -> None:
    logits = torch.tensor([[0.0, 5.0, 1.0]])
    params = SamplingParams(temperature=0.1, logit_bias={1: -math.inf}, logprobs=10**30)
    (result,) = sample(logits, [make_request(params)])
    assert isinstance(result, Sampled)
    assert result.logprobs is not None
    assert result.token_id == 2
    assert result.logprobs.rank == 2
    assert len(result.logprobs.top) == 3
    assert result.logprobs.logprob == pytest.approx(float(logits.log_softmax(1)[0, 2]))


def test_outputs_carry_one_report_for_each_token() -> None:
    model = tiny_model()
    engine = make_engine(model)
    engine.add_request([1, 2, 3], SamplingParams(max_tokens=6, n=2, temperature=1.0, seed=1, logprobs=2), "a")
    engine.add_request([1, 2, 3], SamplingParams(max_tokens=6), "b")
    outputs = {}
    while engine.has_unfinished:
        outputs |= {output.request_id: output.outputs for output in engine.step()}
    assert outputs["b"][0].logprobs is None
    for output in outputs["a"]:
        assert output.logprobs is not None
        expected = dense_logits(model, [1, 2, 3, *output.token_ids])[2:-1].log_softmax(1)
        assert [report.token_id for report in output.logprobs] == list(output.token_ids)
        for report, row in zip(output.logprobs, expected, strict=True):
            assert report.logprob == pytest.approx(float(row[report.token_id]), abs=1e-4)
            assert [token for token, _ in report.top] == row.topk(2).indices.tolist()
