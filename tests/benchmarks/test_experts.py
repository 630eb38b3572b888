"""The study of sparse layers runs at a tiny size; only the times mean nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import experts, sparse_layers
from benchmarks.experts import Sizes, measure, up_to
from benchmarks.sparse_layers import SHIPPED, Shape, check_agreement, our_ways, random_layer, takes_native, their_ways
from tinyllm.config import ModelConfig
from tinyllm.paths import shipped_checkpoint

TINY = Sizes(Shape(16, 8, 3, 2), tokens=(1, 5), experts=(2, 4), experts_tokens=(3, 9), seconds=0.0, min_rounds=1)
THEIRS = {"transformers eager", "transformers grouped_mm"}


def ours(dtype: torch.dtype = torch.float32) -> set[str]:
    """Our ways on a CPU; C is one of them where it can be compiled."""
    layer = random_layer(TINY.shape, "cpu", dtype, seed=0)
    return {"loop", "sorted", "grouped_mm", "torch", *(["native"] if takes_native(layer, "cpu") else [])}


def test_the_study_runs_and_has_every_way_in_every_row() -> None:
    values = measure(TINY, "cpu", seed=0)
    assert set(values["by_tokens"]) == {"1", "5"}
    rows = [*values["by_tokens"].values(), *(row for by_t in values["by_experts"].values() for row in by_t.values())]
    assert len(rows) == 2 + 2 * 2
    for row in rows:
        times = row["milliseconds"]
        assert set(times) - {"dense of as many weights"} == ours() | THEIRS
        assert all(0 < time < 1e5 for time in times.values())
        assert row["speed_over_transformers_eager"] == times["transformers eager"] / times["torch"]
    assert [list(row) for row in values["by_experts"].values()] == [["3", "9"]] * 2
    assert all("dense of as many weights" in row["9"]["milliseconds"] for row in values["by_experts"].values())
    assert set(values["not_measured"]) == {"grouped_product"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_all_ways_compute_the_same(dtype: torch.dtype) -> None:
    shape = Shape(32, 16, 8, 2)
    layer = random_layer(shape, "cpu", dtype, seed=1)
    x = torch.randn(50, 32, dtype=dtype)
    answers = {name: call(x) for name, call in (our_ways(layer, "cpu") | their_ways(layer, shape)).items()}
    assert set(answers) == ours(dtype) | THEIRS
    check_agreement(answers)
    with pytest.raises(SystemExit, match=r"other differs from sorted by .* nothing was written"):
        check_agreement({"sorted": answers["sorted"], "other": 1.1 * answers["sorted"]})


def test_without_transformers_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (experts, sparse_layers):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    values = measure(replace(TINY, tokens=(1,), experts=(2,)), "cpu", seed=0)
    assert set(values["by_tokens"]["1"]["milliseconds"]) == ours()
    assert "pip install" in values["not_measured"]["transformers"]


def test_fewer_tokens_leave_the_larger_batches_out() -> None:
    assert up_to(Sizes(), 512).tokens == (1, 8, 64, 512)
    assert up_to(Sizes(), 512).experts_tokens == (512,)
    assert up_to(Sizes(), 4096).tokens == Sizes().tokens


@pytest.mark.needs("checkpoint")
def test_the_shape_is_that_of_the_shipped_model() -> None:
    config = ModelConfig.from_pretrained(shipped_checkpoint("moe"))
    assert Shape(config.hidden_size, config.moe_intermediate_size, config.num_experts, config.num_experts_per_tok) == (
        SHIPPED
    )
