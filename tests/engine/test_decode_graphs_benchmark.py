"""The study of CUDA graphs runs on a tiny model on the CPU, where both modes are eager; only the times mean nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.checkpoints import small_config
from support.commands import run_without_gpu
from support.models import tiny_model

from benchmarks import decode_graphs
from benchmarks.decode_graphs import Sizes, check_agreement, measure, random_model, transformers_model

TINY = Sizes(
    batches=(1, 3),
    prompt_len=5,
    steps=12,
    large=small_config(),
    large_batch=2,
    large_new_tokens=3,
    rounds=2,
)


def test_the_study_runs_and_counts_what_it_says() -> None:
    values = measure(tiny_model(), TINY, "cpu", seed=0)
    assert set(values["decode_steps"]) == {"1", "3"}
    for row in values["decode_steps"].values():
        for mode in ("graphs", "eager"):
            # 12 tokens: the first comes with the prompt, and 8 of the 11 decodes are warm-up
            assert row[mode]["steps_counted"] == 3
            assert 0 < row[mode]["model_milliseconds"] < row[mode]["step_milliseconds"]
            assert row[mode]["recorded_sizes"] == []
        ratio = row["eager"]["step_milliseconds"] / row["graphs"]["step_milliseconds"]
        assert row["step_eager_over_graphs"] == ratio
    throughput = values["throughput"]
    assert set(throughput["seconds"]) == {"graphs", "eager", "transformers"}
    for name, rate in throughput["tokens_per_second"].items():
        assert rate == pytest.approx(6 / throughput["seconds"][name])
    assert throughput["logits_differ_by"] < 1e-5


def test_other_weights_than_those_of_transformers_stop_it() -> None:
    config = replace(small_config(), tie_word_embeddings=False)
    prompt = torch.tensor([[1, 2, 3]])
    theirs = transformers_model(random_model(config, "cpu", 0), "cpu")
    check_agreement(random_model(config, "cpu", 0), theirs, prompt, "cpu")
    with pytest.raises(SystemExit, match="nothing was written"):
        check_agreement(random_model(config, "cpu", 1), theirs, prompt, "cpu")


def test_without_transformers_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_graphs, "find_spec", lambda name: None)
    values = decode_graphs.measure_throughput(TINY, "cpu", seed=0)
    assert set(values["seconds"]) == {"graphs", "eager"}
    assert "pip install" in values["not_measured"]["transformers"]


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="8 of warm-up"):
        measure(tiny_model(), replace(TINY, steps=9), "cpu", seed=0)


def test_without_a_gpu_it_says_so() -> None:
    done = run_without_gpu("benchmarks.decode_graphs")
    assert done.returncode == 1
    assert "needs an NVIDIA GPU" in done.stderr
