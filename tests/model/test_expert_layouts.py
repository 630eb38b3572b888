"""Experts in files: each matrix by itself under Qwen3-MoE's or Mixtral's names, or all of a layer in two stacks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import pack_experts, random_model, small_config, small_mixtral_config, small_sparse_config

from tinyllm.config import ModelConfig
from tinyllm.errors import CheckpointError
from tinyllm.model.expert_layouts import Layout, file_shapes
from tinyllm.model.loader import load_model, save_model
from tinyllm.model.weight_files import WEIGHTS, WeightFiles


@pytest.mark.parametrize(
    ("config", "layout"),
    [
        (small_config(), Layout.QWEN),
        (small_sparse_config(mlp_only_layers=(1,)), Layout.QWEN),
        (small_mixtral_config(), Layout.MIXTRAL),
    ],
    ids=["dense", "sparse", "mixtral"],
)
def test_a_file_holds_the_tensors_that_its_config_promises(tmp_path: Path, config: ModelConfig, layout: Layout) -> None:
    save_model(random_model(config), tmp_path)
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / WEIGHTS).items()}
    with WeightFiles(tmp_path) as files:
        assert files.layout is layout
        assert files.shapes == shapes == file_shapes(config, layout)


def test_experts_are_stored_under_the_published_names(tmp_path: Path) -> None:
    model = random_model(small_sparse_config())
    save_model(model, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    mlp = model.layers[1].mlp
    gate, up = mlp.experts.gate_up_proj[3].chunk(2)
    assert torch.equal(tensors["model.layers.1.mlp.gate.weight"], mlp.gate.weight)
    assert torch.equal(tensors["model.layers.1.mlp.experts.3.gate_proj.weight"], gate)
    assert torch.equal(tensors["model.layers.1.mlp.experts.3.up_proj.weight"], up)
    assert torch.equal(tensors["model.layers.1.mlp.experts.3.down_proj.weight"], mlp.experts.down_proj[3])


def test_mixtral_has_other_names(tmp_path: Path) -> None:
    model = random_model(small_mixtral_config())
    save_model(model, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    mlp = model.layers[1].mlp
    gate, up = mlp.experts.gate_up_proj[3].chunk(2)
    name = "model.layers.1.block_sparse_moe"
    assert torch.equal(tensors[f"{name}.gate.weight"], mlp.gate.weight)
    assert torch.equal(tensors[f"{name}.experts.3.w1.weight"], gate)
    assert torch.equal(tensors[f"{name}.experts.3.w3.weight"], up)
    assert torch.equal(tensors[f"{name}.experts.3.w2.weight"], mlp.experts.down_proj[3])
    assert not [name for name in tensors if "q_norm" in name or "k_norm" in name or ".mlp." in name]


@pytest.mark.parametrize("config", [small_sparse_config(mlp_only_layers=(1,)), small_mixtral_config()])
def test_stacked_experts_are_the_same_experts(tmp_path: Path, config: ModelConfig) -> None:
    model = random_model(config)
    save_model(model, tmp_path)
    pack_experts(model, tmp_path)
    with WeightFiles(tmp_path) as files:
        assert files.layout is Layout.PACKED
        assert files.shapes == file_shapes(config, Layout.PACKED)
    state, expected = load_model(tmp_path).state_dict(), model.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("config", "packed", "change", "complaint"),
    [
        (
            small_mixtral_config(),
            False,
            lambda t: t.pop("model.layers.2.block_sparse_moe.experts.1.w3.weight"),
            r"1 missing: model\.layers\.2\.block_sparse_moe\.experts\.1\.w3\.weight\.",
        ),
        (
            small_sparse_config(),
            True,
            lambda t: t.pop("model.layers.2.mlp.experts.gate_up_proj"),
            r"1 missing: model\.layers\.2\.mlp\.experts\.gate_up_proj\.",
        ),
        (
            small_sparse_config(),
            True,
            lambda t: t.update({"model.layers.0.mlp.experts.gate_up_proj": torch.zeros(4, 40, 32)}),
            r"gate_up_proj is \[4, 40, 32\] and should be \[4, 32, 40\]",
        ),
        (
            small_sparse_config(),
            True,
            lambda t: t.update({"model.layers.0.mlp.experts.gate_up_proj_bias": torch.zeros(4, 32)}),
            r"1 unknown: model\.layers\.0\.mlp\.experts\.gate_up_proj_bias",
        ),
        (
            small_sparse_config(),
            True,
            lambda t: t.update({"model.layers.0.mlp.experts.0.up_proj.weight": torch.zeros(16, 40)}),
            r"1 unknown: model\.layers\.0\.mlp\.experts\.0\.up_proj\.weight",
        ),
        (
            small_sparse_config(),
            False,
            lambda t: t.update({"model.layers.0.mlp.shared_expert.up_proj.weight": torch.zeros(16, 40)}),
            r"1 unknown: model\.layers\.0\.mlp\.shared_expert\.up_proj\.weight",
        ),
    ],
    ids=["w3 missing", "stack missing", "transposed", "bias", "two layouts", "shared expert"],
)
def test_what_is_wrong_is_named_as_the_file_has_it(
    tmp_path: Path, config: ModelConfig, packed: bool, change: object, complaint: str
) -> None:
    model = random_model(config)
    save_model(model, tmp_path)
    if packed:
        pack_experts(model, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    change(tensors)  # type: ignore[operator]
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=complaint):
        load_model(tmp_path)


def test_an_expert_that_is_missing_or_misshaped(tmp_path: Path) -> None:
    save_model(random_model(small_sparse_config()), tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    tensors.pop("model.layers.2.mlp.experts.1.up_proj.weight")
    tensors["model.layers.0.mlp.gate.weight"] = torch.zeros(5, 40)
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(
        CheckpointError,
        match=r"1 missing: model\.layers\.2\.mlp\.experts\.1\.up_proj\.weight; "
        r"1 of the wrong shape: model\.layers\.0\.mlp\.gate\.weight is \[5, 40\] and should be \[4, 40\]",
    ):
        load_model(tmp_path)
