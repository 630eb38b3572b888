"""config.json as the world writes it: read as transformers reads it, or refused by the name of the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import random_model, small_config, small_mixtral_config, small_sparse_config
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from tinyllm.config import ModelConfig
from tinyllm.errors import CheckpointError
from tinyllm.model.attention import causal_attend
from tinyllm.model.loader import load_model, save_model
from tinyllm.model.ops import LayerOps

Raw = dict[str, Any]
SIZES = {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}
EXPERT_COUNT = {"num_experts", "num_local_experts"}
EXPERT_SIZES = {
    "qwen3": set(),
    "qwen3_moe": {*EXPERT_COUNT, "num_experts_per_tok", "moe_intermediate_size"},
    "mixtral": {*EXPERT_COUNT, "num_experts_per_tok"},
}
CLASSES = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM),
    "mixtral": (MixtralConfig, MixtralForCausalLM),
}
KINDS = sorted(CLASSES)
OLD_NAMES = {
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
}
COMPARED = [
    *["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"],
    *["num_key_value_heads", "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings"],
]
EXPERTS = {
    "qwen3": [],
    "qwen3_moe": [
        "num_experts",
        "num_experts_per_tok",
        "moe_intermediate_size",
        "norm_topk_prob",
        "decoder_sparse_step",
    ],
    "mixtral": ["num_experts", "num_experts_per_tok"],
}


def raw_config(kind: str = "qwen3", **changes: object) -> Raw:
    """A small config as transformers 5 writes it."""
    sizes = {
        "vocab_size": 131,
        "hidden_size": 64,
        "intermediate_size": 56,
        "num_hidden_layers": 2,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 6,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 1000,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
        "eos_token_id": [3, 5],
    }
    experts = {"num_experts": 4, "num_experts_per_tok": 2}
    own = {
        "qwen3": {},
        "qwen3_moe": {**experts, "moe_intermediate_size": 16, "norm_topk_prob": True},
        "mixtral": experts,
    }
    config_class, model_class = CLASSES[kind]
    config = config_class(**sizes, **own[kind])
    config.architectures = [model_class.__name__]
    raw: Raw = {**json.loads(config.to_json_string(use_diff=False)), "model_type": kind}
    return {**raw, **changes}


def as_transformers_reads(raw: Raw) -> Any:
    return CLASSES[raw["model_type"]][0].from_dict(json.loads(json.dumps(raw)))


def complaint_about(raw: Raw) -> str:
    """Why a config is refused; nothing if it is not."""
    try:
        ModelConfig.from_hf(raw)
    except CheckpointError as error:
        return str(error)
    return ""


def assert_read_alike(raw: Raw) -> None:
    ours, theirs = ModelConfig.from_hf(raw), as_transformers_reads(raw)
    kind = theirs.model_type
    for name in COMPARED + EXPERTS[kind]:
        assert getattr(ours, OLD_NAMES.get(name, name)) == getattr(theirs, name), name
    # The attention of a Qwen3-MoE divides where its config has no head_dim, and that of Mixtral where it is null too.
    head_dim = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    assert ours.head_dim == head_dim
    assert ours.qk_norm == (kind != "mixtral")
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
    assert theirs.rope_parameters["rope_type"] == "default"
    if kind == "qwen3_moe":
        assert list(ours.mlp_only_layers) == theirs.mlp_only_layers
    if kind == "mixtral":
        assert (ours.moe_intermediate_size, ours.norm_topk_prob) == (theirs.intermediate_size, True)
        assert ours.sparse_layers == tuple(range(theirs.num_hidden_layers))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_a_config_with_any_fields_left_out_is_read_as_transformers_does(data: st.DataObject, kind: str) -> None:
    raw = raw_config(kind)
    dropped = data.draw(st.sets(st.sampled_from(sorted(raw.keys() - {"architectures", "model_type"}))))
    raw = {key: value for key, value in raw.items() if key not in dropped}
    missing = (SIZES | EXPERT_SIZES[kind]) - raw.keys()
    if EXPERT_COUNT & raw.keys():
        missing -= EXPERT_COUNT
    if missing:
        with pytest.raises(CheckpointError, match=r"the config has no '(" + "|".join(missing) + ")'"):
            ModelConfig.from_hf(raw)
    else:
        assert_read_alike(raw)


rope_entries = st.fixed_dictionaries(
    {},
    optional={
        "rope_theta": st.sampled_from([10_000, 5e5, 1e6, None, "10000", 0]),
        "rope_type": st.sampled_from(["default", "yarn", "linear", None]),
        "type": st.sampled_from(["default", "dynamic"]),
        "factor": st.just(4.0),
        "partial_rotary_factor": st.sampled_from([1.0, 0.5]),
        "full_attention": st.just({"rope_type": "default", "rope_theta": 5e5}),
    },
)


@settings(max_examples=200, deadline=None)
@given(
    data=st.fixed_dictionaries(
        {},
        optional={
            "rope_theta": st.sampled_from([10_000, 7e5, 1e6, None]),
            "rope_scaling": st.none() | rope_entries,
            "rope_parameters": st.none() | rope_entries,
        },
    ),
    kind=st.sampled_from(KINDS),
)
def test_rope_is_read_as_transformers_does_or_refused(data: Raw, kind: str) -> None:
    raw = {key: value for key, value in raw_config(kind).items() if not key.startswith("rope_")} | data
    if not (complaint := complaint_about(raw)):
        assert_read_alike(raw)
        assert as_transformers_reads(raw).rope_parameters.keys() <= {"rope_theta", "rope_type", "type"}
    assert complaint == "" or "rope" in complaint


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            r"rope_scaling asks for rope scaling 'yarn', which is not supported\..*remove rope_scaling",
        ),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling asks for rope scaling 'linear'"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e6}}, "rope_parameters asks for .*'llama3'"),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}},
            r"rope_parameters differs by layer type \(full_attention, sliding_attention\)",
        ),
        ({"rope_parameters": {"rope_theta": 1e6, "mrope_section": [1, 2]}}, "rope_parameters holds mrope_section"),
        ({"rope_parameters": {"rope_theta": None}}, r"rope_parameters\.rope_theta is null; expected a number above 0"),
        ({"rope_parameters": None, "rope_theta": None}, "rope_theta is null; expected a number above 0"),
        ({"rope_parameters": {"rope_theta": "1e6"}}, r"rope_parameters\.rope_theta is '1e6'; expected a number"),
        ({"rope_scaling": "yarn"}, "rope_scaling is 'yarn'; expected an object, or null"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ],
)
def test_a_rope_that_is_not_computed_is_refused(kind: str, changes: Raw, complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        ModelConfig.from_hf(raw_config(kind, **changes))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hidden_size": None}, "hidden_size is null; expected a whole number from 1 up$"),
        ({"rms_norm_eps": None}, r"rms_norm_eps is null; expected a number above 0, or leave it out \(1e-0[56] is"),
        ({"tie_word_embeddings": None}, r"tie_word_embeddings is null; expected true or false, or .*\(false is"),
        ({"hidden_act": None}, "hidden_act is null; expected a string"),
        ({"max_position_embeddings": None}, "max_position_embeddings is null"),
        ({"num_attention_heads": "32"}, "num_attention_heads is '32'; expected a whole number"),
        ({"num_attention_heads": True}, "num_attention_heads is True; expected a whole number"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0; expected a whole number from 1 up"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps is '1e-6'; expected a number"),
        ({"head_dim": 7}, "head_dim is 7; RoPE turns pairs of channels, so it must be even"),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>'; expected a token id"),
        ({"eos_token_id": [1, None]}, r"eos_token_id is \[1, None\]; expected a token id"),
        ({"hidden_act": "gelu"}, "asks for activation 'gelu'"),
        ({"attention_bias": True}, "asks for attention_bias"),
        ({"use_sliding_window": True}, "asks for sliding-window attention"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types asks for sliding_attention"),
        ({"layer_types": ["full_attention"]}, "layer_types is .*expected a list of 2"),
        ({"per_layer_config": {"0": {"intermediate_size": 8}}}, "settings by layer"),
        ({"model_type": "llama"}, "model_type 'llama': they contradict each other"),
    ],
)
def test_a_field_that_makes_no_sense_is_named_with_its_file(
    tmp_path: Path, kind: str, changes: Raw, complaint: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(raw_config(kind, **changes)))
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{complaint}"):
        ModelConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("kind", "changes", "complaint"),
    [
        ("qwen3", {"head_dim": None}, "head_dim is null; expected a whole number from 1 up, or leave it out"),
        ("qwen3_moe", {"head_dim": None}, "head_dim is null; expected a whole number from 1 up, or leave it out"),
        ("qwen3_moe", {"num_key_value_heads": None}, "num_key_value_heads is null"),
        ("qwen3_moe", {"num_local_experts": None}, "num_local_experts is null"),
        ("qwen3_moe", {"norm_topk_prob": None}, "norm_topk_prob is null"),
        ("qwen3_moe", {"mlp_only_layers": ["0"]}, "mlp_only_layers is"),
        ("qwen3_moe", {"num_experts": 8}, "num_local_experts is 4 and num_experts 8: .* remove the wrong one"),
        ("mixtral", {"num_key_value_heads": None}, "num_key_value_heads is null"),
        ("mixtral", {"num_experts": 8}, "num_local_experts is 4 and num_experts 8: .* remove the wrong one"),
        ("mixtral", {"num_local_experts": 0}, "num_local_experts is 0; expected a whole number from 1 up"),
        ("mixtral", {"num_experts_per_tok": 5}, "a token cannot use 5 of 4 experts"),
        ("mixtral", {"sliding_window": 4096}, r"sliding-window attention \(sliding_window is 4096\)"),
    ],
)
def test_a_field_of_one_class_that_makes_no_sense(kind: str, changes: Raw, complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        ModelConfig.from_hf(raw_config(kind, **changes))


@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral"])
def test_both_names_of_the_number_of_experts(kind: str) -> None:
    raw = raw_config(kind)
    assert "num_experts" not in raw, "transformers 5 writes num_local_experts"
    other = {key: value for key, value in raw.items() if key != "num_local_experts"} | {"num_experts": 4}
    assert ModelConfig.from_hf(other) == ModelConfig.from_hf({**raw, **other}) == ModelConfig.from_hf(raw)
    assert_read_alike(other)


def test_null_where_it_has_a_meaning() -> None:
    nulls = {"layer_types": None, "rope_scaling": None, "eos_token_id": None, "quantization_config": None}
    assert_read_alike(raw_config(num_key_value_heads=None, **nulls))
    assert_read_alike(raw_config("qwen3_moe", mlp_only_layers=None, **nulls))
    assert_read_alike(raw_config("mixtral", head_dim=None, sliding_window=None, **nulls))


def test_head_dim_when_it_is_left_out() -> None:
    for kind, expected in (("qwen3", 128), ("qwen3_moe", 2), ("mixtral", 2)):
        raw = raw_config(kind)
        del raw["head_dim"]
        assert ModelConfig.from_hf(raw).head_dim == expected
        assert_read_alike(raw)


def test_an_architecture_that_only_model_type_tells() -> None:
    for kind in KINDS:
        raw = raw_config(kind)
        assert ModelConfig.from_hf({**raw, "architectures": None}) == ModelConfig.from_hf(raw)
    with pytest.raises(CheckpointError, match=r"architecture \(none named\) is not supported"):
        ModelConfig.from_hf({"hidden_size": 8})


@pytest.mark.parametrize(
    "entry",
    [
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "gptq", "bits": 4},
        {},
    ],
    ids=["fp8", "awq", "gptq", "empty"],
)
@pytest.mark.parametrize("name", ["quantization_config", "compression_config"])
def test_quantized_weights_are_refused(tmp_path: Path, name: str, entry: Raw) -> None:
    save_model(random_model(small_config()), tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**raw, name: entry}))
    method = repr(entry.get("quant_method"))
    with pytest.raises(
        CheckpointError, match=rf"quantized weights are not supported \({name} names the method {method}"
    ):
        load_model(tmp_path)


@torch.inference_mode()
@pytest.mark.parametrize("packed", [False, True], ids=["as published", "packed"])
@pytest.mark.parametrize(
    "dropped", [(), ("head_dim",), ("rope_parameters",), ("head_dim", "rms_norm_eps", "layer_types")]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_random_checkpoint_that_transformers_wrote(
    tmp_path: Path, kind: str, dropped: tuple[str, ...], packed: bool
) -> None:
    raw = {key: value for key, value in raw_config(kind).items() if key not in dropped}
    torch.manual_seed(len(dropped))
    model = CLASSES[kind][1](as_transformers_reads(raw)).eval()
    for name, weight in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(tmp_path, save_original_format=not packed)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    ours = load_model(tmp_path)
    ids = torch.randint(131, (1, 40))
    expected = model(ids).logits[0]
    logits = ours.compute_logits(ours(ids[0], torch.arange(40), LayerOps(causal_attend())))
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_what_is_written_is_read_back() -> None:
    for config in (small_config(), small_sparse_config(mlp_only_layers=(1,)), small_mixtral_config()):
        assert ModelConfig.from_hf(config.to_hf()) == config
        assert_read_alike({**config.to_hf()})


@pytest.mark.parametrize(
    ("config", "lacks"),
    [
        (small_config(qk_norm=False), "experts in every layer, .*moe_intermediate_size"),
        (small_mixtral_config(norm_topk_prob=False), "norm_topk_prob$"),
        (small_mixtral_config(decoder_sparse_step=2), "experts in every layer$"),
        (small_mixtral_config(moe_intermediate_size=24), "intermediate_size equal to moe_intermediate_size$"),
    ],
)
def test_a_model_that_transformers_does_not_have_is_not_written(config: ModelConfig, lacks: str) -> None:
    with pytest.raises(CheckpointError, match=f"written as a MixtralForCausalLM.* it lacks {lacks}"):
        config.to_hf()
