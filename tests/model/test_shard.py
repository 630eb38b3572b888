"""A model split over processes: together the parts are the whole, in their numbers and in what they compute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import pack_experts, random_model, small_config, small_mixtral_config, small_sparse_config
from torch import Tensor

from tinyllm.config import ModelConfig
from tinyllm.errors import OptionError
from tinyllm.model.attention import causal_attend
from tinyllm.model.loader import load_model, save_model
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.model.rope import rotary_cos_sin
from tinyllm.model.shard import Shard, Sharding
from tinyllm.model.weight_files import WeightFiles

WIDE = {"num_heads": 12, "num_kv_heads": 6, "intermediate_size": 42}
DENSE = small_config(**WIDE)
SPARSE = small_sparse_config(**WIDE, num_experts=6, moe_intermediate_size=18, mlp_only_layers=(1,))
MIXTRAL = small_mixtral_config(
    num_heads=12, num_kv_heads=6, num_experts=6, intermediate_size=18, moe_intermediate_size=18
)
SIZES = st.integers(1, 40)


def ranks(folder: Path, world_size: int, tensor: bool = True, experts: bool = False) -> list[Qwen3ForCausalLM]:
    """The parts of a checkpoint, by rank."""
    shards = [Shard(rank, world_size) for rank in range(world_size)]
    whole = Shard()
    return [
        load_model(folder, sharding=Sharding(shard if tensor else whole, shard if experts else None))
        for shard in shards
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
@pytest.mark.parametrize(
    "config",
    [DENSE, SPARSE, small_config(**WIDE, tie_word_embeddings=False), MIXTRAL],
    ids=["dense", "sparse", "untied", "mixtral"],
)
def test_a_layer_is_the_sum_of_its_parts(tmp_path: Path, config: ModelConfig, world_size: int) -> None:
    """Each part computes with its own heads and its own columns; only a right split adds up to the layer's answer."""
    save_model(random_model(config), tmp_path)
    model, parts = load_model(tmp_path), ranks(tmp_path, world_size)
    x = torch.randn(9, config.hidden_size)
    cos, sin = rotary_cos_sin(torch.arange(9), config.head_dim, config.rope_theta)
    for number, layer in enumerate(model.layers):
        assert_sum([part.layers[number].mlp(x) for part in parts], layer.mlp(x))
        attention = [part.layers[number].self_attn(x, cos, sin, causal_attend()) for part in parts]
        assert_sum(attention, layer.self_attn(x, cos, sin, causal_attend()))
    for part in parts:
        assert part.config.num_kv_heads == config.num_kv_heads // world_size, "the pool has no room for other heads"
        assert part.layers[0].self_attn.qkv_proj.weight.shape[0] * world_size == sum(
            count * config.head_dim for count in (config.num_heads, config.num_kv_heads, config.num_kv_heads)
        )
        assert torch.equal(part.head_weight, model.head_weight)


def assert_sum(parts: list[Tensor], whole: Tensor) -> None:
    torch.testing.assert_close(sum(parts), whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_experts_lie_whole_on_one_process_each(tmp_path: Path, world_size: int) -> None:
    save_model(random_model(SPARSE), tmp_path)
    model, parts = load_model(tmp_path), ranks(tmp_path, world_size, tensor=False, experts=True)
    for layer in SPARSE.sparse_layers:
        for name in ("gate_up_proj", "down_proj"):
            pieces = [getattr(part.layers[layer].mlp.experts, name) for part in parts]
            assert all(len(piece) == 6 // world_size for piece in pieces)
            assert torch.equal(torch.cat(pieces), getattr(model.layers[layer].mlp.experts, name))
    for part in parts:
        theirs, ours = weights_but_experts(part), weights_but_experts(model)
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def weights_but_experts(model: Qwen3ForCausalLM) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.state_dict().items() if ".experts." not in name}


def test_experts_stay_whole_where_the_rest_is_cut(tmp_path: Path) -> None:
    """Attention in tensor parallel, experts in expert parallel: how large models of this kind are mostly served."""
    save_model(random_model(SPARSE), tmp_path)
    model, parts = load_model(tmp_path), ranks(tmp_path, 3, tensor=True, experts=True)
    x = torch.randn(4, SPARSE.hidden_size)
    assert_sum([part.layers[1].mlp(x) for part in parts], model.layers[1].mlp(x))
    pieces = [part.layers[0].mlp.experts.down_proj for part in parts]
    assert torch.equal(torch.cat(pieces), model.layers[0].mlp.experts.down_proj)


@pytest.mark.parametrize("packed", [False, True], ids=["as published", "packed"])
@pytest.mark.parametrize("experts", [False, True], ids=["tensor", "experts too"])
@pytest.mark.parametrize("config", [SPARSE, MIXTRAL], ids=["qwen3_moe", "mixtral"])
def test_the_parts_are_the_same_in_every_layout(
    tmp_path: Path, config: ModelConfig, experts: bool, packed: bool
) -> None:
    """Against cuts of the model in memory, whose experts are stacks with gate above up."""
    model = random_model(config)
    save_model(model, tmp_path)
    if packed:
        pack_experts(model, tmp_path)
    inner = config.moe_intermediate_size
    for rank, part in enumerate(ranks(tmp_path, 3, experts=experts)):
        for layer in config.sparse_layers:
            ours, whole = part.layers[layer].mlp.experts, model.layers[layer].mlp.experts
            gate, up = whole.gate_up_proj.split(inner, dim=1)
            down = whole.down_proj
            if experts:
                gate, up, down = (matrix.chunk(3)[rank] for matrix in (gate, up, down))
            else:
                gate, up = (matrix.chunk(3, dim=1)[rank] for matrix in (gate, up))
                down = down.chunk(3, dim=2)[rank]
            assert torch.equal(ours.gate_up_proj, torch.cat((gate, up), dim=1))
            assert torch.equal(ours.down_proj, down)
            assert torch.equal(part.layers[layer].mlp.gate.weight, model.layers[layer].mlp.gate.weight)


@pytest.mark.parametrize("experts", [False, True], ids=["tensor", "experts too"])
def test_a_process_reads_its_own_part_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experts: bool
) -> None:
    save_model(random_model(SPARSE), tmp_path)
    read: list[tuple[str, int]] = []
    plain = WeightFiles.read

    def counted(self: WeightFiles, name: str, part: tuple[slice, ...]) -> Tensor:
        tensor = plain(self, name, part)
        read.append((name, tensor.numel()))
        return tensor

    monkeypatch.setattr(WeightFiles, "read", counted)
    whole = dict(elements(tmp_path, Sharding(), read))
    for rank in range(3):
        shard = Shard(rank, 3)
        part = dict(elements(tmp_path, Sharding(shard, shard if experts else None), read))
        divided = [name for name in whole if name.endswith("_proj.weight")]
        assert 3 * sum(part.get(name, 0) for name in divided) == sum(whole[name] for name in divided)
        assert all(part[name] == whole[name] for name in whole.keys() - divided), "the others are on all"


def elements(folder: Path, sharding: Sharding, read: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    read.clear()
    load_model(folder, sharding=sharding)
    return iter(list(read))


@pytest.mark.parametrize(
    ("config", "sharding", "words"),
    [
        (DENSE, Sharding(Shard(0, 4)), "4 processes cannot share 6 key/value heads evenly"),
        (DENSE, Sharding(Shard(0, 5)), "5 processes cannot share 12 query heads evenly"),
        (small_config(**{**WIDE, "intermediate_size": 43}), Sharding(Shard(1, 2)), r"share 43 rows of an MLP \(inter"),
        (SPARSE, Sharding(Shard(), Shard(2, 4)), "4 processes cannot share 6 experts evenly"),
        (
            small_sparse_config(**WIDE, moe_intermediate_size=17),
            Sharding(Shard(1, 2)),
            r"2 processes cannot share 17 rows of an expert \(moe_intermediate_size\) evenly",
        ),
    ],
    ids=["KV heads", "query heads", "MLP", "experts", "inside experts"],
)
def test_what_cannot_be_divided_evenly_is_refused_in_words(
    tmp_path: Path, config: ModelConfig, sharding: Sharding, words: str
) -> None:
    save_model(random_model(config), tmp_path)
    with pytest.raises(OptionError, match=words):
        load_model(tmp_path, sharding=sharding)


@pytest.mark.parametrize(("rank", "world_size"), [(-1, 2), (2, 2), (0, 0)])
def test_a_rank_must_exist(rank: int, world_size: int) -> None:
    with pytest.raises(OptionError, match=f"no rank {rank} among {world_size}"):
        Shard(rank, world_size)


@given(share=SIZES, world_size=st.integers(1, 8))
def test_spans_tile_what_they_divide(share: int, world_size: int) -> None:
    things = list(range(share * world_size))
    spans: list[Any] = [Shard(rank, world_size).span(len(things), "things") for rank in range(world_size)]
    assert [thing for span in spans for thing in things[span]] == things
