"""The decoder against the one of transformers, which nobody here wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.checkpoints import random_model, small_config, small_mixtral_config, small_sparse_config
from support.oracle import theirs
from torch import Tensor
from transformers import MixtralForCausalLM, Qwen3MoeForCausalLM

from tinyllm.config import ModelConfig
from tinyllm.model.attention import causal_attend
from tinyllm.model.loader import load_model, save_model
from tinyllm.model.ops import LayerOps
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.paths import shipped_checkpoint

TOLERANCE = 1e-5  # of the largest logit, in float32: transformers differs from itself by as much


def our_logits(model: Qwen3ForCausalLM, rows: Tensor) -> Tensor:
    """[B, T] ids -> [B, T, V]."""
    num_rows, length = rows.shape
    positions = torch.arange(length).repeat(num_rows)
    hidden = model(rows.flatten(), positions, LayerOps(causal_attend(num_rows)))
    return model.compute_logits(hidden).unflatten(0, (num_rows, length))


def assert_same_logits(ours: Tensor, expected: Tensor) -> None:
    assert ours.shape == expected.shape
    assert ours.dtype == torch.float32
    error = (ours - expected).abs().max() / expected.abs().max()
    assert error <= TOLERANCE, f"logits differ by {error:.2e} of the largest"


@torch.inference_mode()
@pytest.mark.parametrize("gqa_ratio", [1, 2, 4])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("head_dim", [10, 12], ids=["square", "head_dim apart"])
def test_random_models(tmp_path: Path, gqa_ratio: int, tied: bool, head_dim: int) -> None:
    config = small_config(num_kv_heads=4 // gqa_ratio, tie_word_embeddings=tied, head_dim=head_dim)
    save_model(random_model(config, seed=gqa_ratio), tmp_path)
    rows = torch.randint(config.vocab_size, (3, 37))
    assert_same_logits(our_logits(load_model(tmp_path), rows), theirs(tmp_path)(rows).logits)


@torch.inference_mode()
@pytest.mark.parametrize("num_experts", [4, 8])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("norm_topk_prob", [True, False], ids=["normalized", "as they are"])
@pytest.mark.parametrize(
    ("layers", "sparse"),
    [({}, (0, 1, 2)), ({"decoder_sparse_step": 2}, (1,)), ({"mlp_only_layers": (0,)}, (1, 2))],
    ids=["all sparse", "every second", "the first dense"],
)
def test_random_mixtures_of_experts(
    tmp_path: Path, num_experts: int, k: int, norm_topk_prob: bool, layers: dict[str, object], sparse: tuple[int, ...]
) -> None:
    config = small_sparse_config(
        num_experts=num_experts, num_experts_per_tok=k, norm_topk_prob=norm_topk_prob, **layers
    )
    assert config.sparse_layers == sparse
    save_model(random_model(config, seed=num_experts + k), tmp_path)
    model = theirs(tmp_path)
    assert isinstance(model, Qwen3MoeForCausalLM)
    rows = torch.randint(config.vocab_size, (3, 37))
    assert_same_logits(our_logits(load_model(tmp_path), rows), model(rows).logits)
    one = rows[:1, :1]
    assert_same_logits(our_logits(load_model(tmp_path), one), model(one).logits)


@torch.inference_mode()
@pytest.mark.parametrize(("num_experts", "k"), [(4, 1), (4, 2), (8, 2), (8, 8)])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("gqa_ratio", [1, 4])
def test_random_mixtrals(tmp_path: Path, num_experts: int, k: int, tied: bool, gqa_ratio: int) -> None:
    config = small_mixtral_config(
        num_experts=num_experts, num_experts_per_tok=k, tie_word_embeddings=tied, num_kv_heads=4 // gqa_ratio
    )
    save_model(random_model(config, seed=num_experts + k), tmp_path)
    model = theirs(tmp_path)
    assert isinstance(model, MixtralForCausalLM)
    rows = torch.randint(config.vocab_size, (3, 37))
    assert_same_logits(our_logits(load_model(tmp_path), rows), model(rows).logits)


@torch.inference_mode()
@pytest.mark.parametrize("packed", [False, True], ids=["as published", "packed"])
@pytest.mark.parametrize(
    "make_config", [small_config, small_sparse_config, small_mixtral_config], ids=["dense", "sparse", "mixtral"]
)
def test_a_checkpoint_that_transformers_wrote_in_shards(
    tmp_path: Path, make_config: Callable[..., ModelConfig], packed: bool
) -> None:
    save_model(random_model(make_config(tie_word_embeddings=False)), tmp_path / "whole")
    model = theirs(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="40KB", save_original_format=not packed)
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    rows = torch.randint(131, (2, 20))
    assert_same_logits(our_logits(load_model(tmp_path / "shards"), rows), model(rows).logits)


@torch.inference_mode()
@pytest.mark.needs("checkpoint")
@pytest.mark.parametrize("length", [1, 17, 300, 2048])
@pytest.mark.parametrize("name", ["target", "moe"])
def test_the_shipped_checkpoints(name: str, length: int) -> None:
    torch.manual_seed(length)
    folder = shipped_checkpoint(name)
    ours = load_model(folder)
    rows = torch.randint(ours.config.vocab_size, (1, length))
    assert_same_logits(our_logits(ours, rows), theirs(folder)(rows).logits)


@torch.inference_mode()
@pytest.mark.parametrize(
    "make_config", [small_config, small_sparse_config, small_mixtral_config], ids=["dense", "sparse", "mixtral"]
)
def test_bfloat16_weights_are_read_exactly(tmp_path: Path, make_config: Callable[..., ModelConfig]) -> None:
    save_model(random_model(make_config(dtype="bfloat16")), tmp_path)
    ours = load_model(tmp_path)
    assert all(weight.dtype == torch.float32 for weight in ours.parameters())
    rows = torch.randint(131, (1, 20))
    assert_same_logits(our_logits(ours, rows), theirs(tmp_path)(rows).logits)


@torch.inference_mode()
def test_a_model_in_bfloat16_stays_close(tmp_path: Path) -> None:
    """Only close: bfloat16 keeps 8 bits, so this holds the dtypes of the layers to account, no more."""
    save_model(random_model(small_config()), tmp_path)
    rows = torch.randint(131, (1, 20))
    half, full = load_model(tmp_path, dtype=torch.bfloat16), load_model(tmp_path)
    hidden = half(rows[0], torch.arange(20), LayerOps(causal_attend()))
    assert hidden.dtype == torch.bfloat16
    expected = our_logits(full, rows)
    assert (half.compute_logits(hidden) - expected[0]).abs().max() < 0.1 * expected.abs().max()
