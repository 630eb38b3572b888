"""Checkpoints written and read back, and everything that can be wrong with one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import random_model, small_config, small_mixtral_config, small_sparse_config

from tinyllm.config import ModelConfig
from tinyllm.errors import CheckpointError
from tinyllm.model.loader import load_model, save_model
from tinyllm.model.weight_files import INDEX, WEIGHTS


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with a small random checkpoint, to be spoilt."""
    folder = tmp_path / "checkpoint"
    save_model(random_model(small_config()), folder)
    return folder


@pytest.mark.parametrize(
    "config",
    [
        small_config(),
        small_config(tie_word_embeddings=False),
        small_sparse_config(),
        small_sparse_config(num_experts_per_tok=1, norm_topk_prob=False, decoder_sparse_step=2),
        small_sparse_config(mlp_only_layers=(0, 2)),
        small_mixtral_config(),
    ],
    ids=["tied", "untied", "sparse", "every second layer sparse", "one layer sparse", "mixtral"],
)
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, config: ModelConfig) -> None:
    model = random_model(config)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.config == model.config
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())
    state, expected = loaded.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_load_does_not_wait_for_the_compiler_of_torch(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # its import fails
    load_model(checkpoint)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"num_experts": None}, "has no 'num_experts'"),
        ({"moe_intermediate_size": None}, "has no 'moe_intermediate_size'"),
        ({"num_experts_per_tok": 5}, "a token cannot use 5 of 4 experts"),
        ({"num_experts_per_tok": 0}, "a token cannot use 0 of 4 experts"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step is 0"),
    ],
    ids=["no number", "no size", "more than there are", "none a token", "no step"],
)
def test_a_config_whose_experts_make_no_sense(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    save_model(random_model(small_sparse_config()), tmp_path)
    raw = {**json.loads((tmp_path / "config.json").read_text()), **changes}
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))
    with pytest.raises(CheckpointError, match=complaint):
        load_model(tmp_path)


def test_a_tied_file_may_repeat_the_head(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / WEIGHTS)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, checkpoint / WEIGHTS)
    assert load_model(checkpoint).config.tie_word_embeddings


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint folder at .*nowhere"):
        load_model(tmp_path / "nowhere")


def test_no_weights(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing.*copy the checkpoint folder again"):
        load_model(checkpoint)


@pytest.mark.parametrize("keep", [0, 5, 2000, -100], ids=["empty", "in the length", "in the header", "in the data"])
def test_weights_cut_short(checkpoint: Path, keep: int) -> None:
    whole = (checkpoint / WEIGHTS).read_bytes()
    (checkpoint / WEIGHTS).write_bytes(whole[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or was cut short.*copy it again"):
        load_model(checkpoint)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop("model.layers.1.self_attn.k_norm.weight"), r"1 missing: model\.layers\.1\.self_attn\.k_norm"),
        (lambda t: t.update({"model.layers.9.extra": torch.zeros(2)}), r"1 unknown: model\.layers\.9\.extra"),
        (
            lambda t: t.update({"model.norm.weight": torch.zeros(41)}),
            r"1 of the wrong shape: model\.norm\.weight is \[41\] and should be \[40\]",
        ),
        (lambda t: t.clear(), r"35 missing: model\.embed_tokens.*, \.\.\."),
    ],
    ids=["missing", "unknown", "misshaped", "none"],
)
def test_weights_that_do_not_fit_the_config(checkpoint: Path, change: object, complaint: str) -> None:
    tensors = load_file(checkpoint / WEIGHTS)
    change(tensors)  # type: ignore[operator]
    save_file(tensors, checkpoint / WEIGHTS)
    with pytest.raises(CheckpointError, match=complaint):
        load_model(checkpoint)


def test_an_untied_config_needs_a_head(checkpoint: Path) -> None:
    raw = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**raw, "tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match=r"1 missing: lm_head\.weight"):
        load_model(checkpoint)


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        (
            {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}},
            "model-00002-of-00002.safetensors is missing",
        ),
        ({}, "has no weight_map"),
        ({"weight_map": {"model.norm.weight": 3}}, "has no weight_map"),
    ],
    ids=["missing shard", "empty", "nonsense"],
)
def test_an_index_that_leads_nowhere(checkpoint: Path, index: object, complaint: str) -> None:
    (checkpoint / WEIGHTS).unlink()
    (checkpoint / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=complaint):
        load_model(checkpoint)


def test_a_whole_file_comes_before_an_index_that_was_left_over(checkpoint: Path) -> None:
    expected = load_model(checkpoint).state_dict()
    stale = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (checkpoint / INDEX).write_text(json.dumps(stale))
    state = load_model(checkpoint).state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("model.layers.0.self_attn.q_proj.weight", torch.zeros(48, 40, dtype=torch.float8_e4m3fn)),
        ("model.layers.0.self_attn.q_proj.weight", torch.zeros(48, 40, dtype=torch.int8)),
        ("model.layers.0.self_attn.q_proj.weight_scale_inv", torch.zeros(1, 1)),
        ("model.layers.0.self_attn.q_proj.qweight", torch.zeros(5, 48, dtype=torch.int32)),
        ("model.layers.0.self_attn.q_proj.scales", torch.zeros(1, 48, dtype=torch.float16)),
    ],
    ids=["fp8", "int8", "scale of fp8", "gptq", "awq"],
)
def test_quantized_weights_whose_config_does_not_say_so(checkpoint: Path, name: str, tensor: torch.Tensor) -> None:
    save_file({**load_file(checkpoint / WEIGHTS), name: tensor}, checkpoint / WEIGHTS)
    with pytest.raises(CheckpointError, match=rf"quantized weights are not supported .*{name}, in .*bfloat16"):
        load_model(checkpoint)


def test_another_architecture(checkpoint: Path) -> None:
    raw = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**raw, "architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(CheckpointError, match="architecture GPT2LMHeadModel is not supported"):
        load_model(checkpoint)
