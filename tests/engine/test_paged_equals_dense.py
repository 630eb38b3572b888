"""The paged cache gives the logits of the dense one: any block order, block size, length, chunking, fork or hit."""

from __future__ import annotations

import random

import pytest
import torch
from support.models import VOCAB, dense_logits, tiny_model
from torch import Tensor

from tinyllm.attention.metadata import AttentionMetadata
from tinyllm.attention.torch import TorchAttention
from tinyllm.config import CacheConfig
from tinyllm.engine.model_runner import padded
from tinyllm.kv_cache.manager import KVCacheManager
from tinyllm.model.ops import LayerOps
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.parts import resolve


class PagedModel:
    """Drives the model over the cache manager by hand, with the pool's free blocks in random order."""

    def __init__(self, model: Qwen3ForCausalLM, block_size: int, num_slots: int, rng: random.Random) -> None:
        config = CacheConfig(block_size=block_size, num_blocks=-(-num_slots // block_size))
        self.model = model
        self.kv = KVCacheManager(model.config, config, resolve(), torch.float32, "cpu")
        rng.shuffle(self.kv.allocator.free_ids)
        self.tokens: dict[str, list[int]] = {}

    def start(self, name: str, tokens: list[int]) -> int:
        """Open a sequence; returns how many of its tokens were cached."""
        num_cached = self.kv.start(name, tokens)
        assert num_cached is not None
        self.tokens[name] = tokens[:num_cached]
        return num_cached

    def fork(self, parent: str, child: str) -> None:
        self.kv.fork(parent, child)
        self.tokens[child] = list(self.tokens[parent])

    def step(self, new_tokens: dict[str, list[int]]) -> dict[str, Tensor]:
        """Compute more tokens of some sequences in one flattened batch: the logits after each token."""
        slots, positions, starts, lens, blocks = [], [], [0], [], []
        for name, tokens in new_tokens.items():
            granted = self.kv.append(name, len(tokens))
            assert granted is not None, "the pool is full"
            slots += granted
            first = len(self.tokens[name])
            self.tokens[name] += tokens
            positions += range(first, first + len(tokens))
            starts.append(len(slots))
            lens.append(first + len(tokens))
            blocks.append(self.kv.table(name).block_ids)
        metadata = AttentionMetadata(
            torch.tensor(starts, dtype=torch.int32),
            torch.tensor(lens, dtype=torch.int32),
            padded(blocks),
            torch.tensor(slots),
            self.kv.block_size,
            min(map(len, new_tokens.values())),
            max(map(len, new_tokens.values())),
        )
        ops = LayerOps(TorchAttention().plan(metadata, self.kv.storage))
        flat = torch.tensor([token for tokens in new_tokens.values() for token in tokens])
        logits = self.model.compute_logits(self.model(flat, torch.tensor(positions), ops))
        return dict(zip(new_tokens, logits.split([len(t) for t in new_tokens.values()]), strict=True))


def assert_same(got: Tensor, expected: Tensor) -> None:
    """Within 1e-5 of the largest logit."""
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def random_tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(VOCAB) for _ in range(count)]


@pytest.mark.parametrize("gqa_ratio", [1, 2, 4])
@pytest.mark.parametrize("block_size", [1, 4, 16])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 15, 16, 17, 33, 64, 100, 255, 300])
def test_prefill_and_decode(block_size: int, length: int, gqa_ratio: int) -> None:
    rng = random.Random(f"{block_size}-{length}-{gqa_ratio}")
    model = tiny_model(gqa_ratio)
    paged = PagedModel(model, block_size, 900, rng)
    tokens, other = random_tokens(rng, length + 4), random_tokens(rng, rng.randint(1, 40))
    paged.start("a", tokens[:length])
    paged.start("b", other)
    split = rng.randint(0, length - 1)
    got = [paged.step({"a": tokens[:split]})["a"]] if split else []
    got.append(paged.step({"b": other, "a": tokens[split:length]})["a"])
    got += [paged.step({"a": tokens[i : i + 1], "b": [1]})["a"] for i in range(length, length + 4)]
    assert_same(torch.cat(got), dense_logits(model, tokens))


@pytest.mark.parametrize("block_size", [1, 4, 16])
@pytest.mark.parametrize("seed", range(8))
def test_forks_and_prefix_hits(block_size: int, seed: int) -> None:
    rng = random.Random(f"{block_size}-{seed}")
    model = tiny_model(gqa_ratio=rng.choice([1, 2, 4]))
    paged = PagedModel(model, block_size, 2000, rng)
    prompt = random_tokens(rng, rng.randint(1, 120))
    paged.start("root", prompt)
    paged.step({"root": prompt})
    paged.kv.cache_blocks("root", prompt)
    names = ["root"]
    for i in range(rng.randint(1, 4)):
        parent = rng.choice(names)
        paged.fork(parent, f"fork{i}")
        names.append(f"fork{i}")
        paged.step({name: random_tokens(rng, rng.choice([1, 1, 1, 5])) for name in names})
    begins_alike = prompt[: rng.randint(1, len(prompt))] + random_tokens(rng, rng.randint(1, 30))
    num_hit = paged.start("hit", begins_alike)
    if block_size == 1:
        assert num_hit > 0, "a prefix of single-token blocks must be found"
    paged.step({"hit": begins_alike[num_hit:]})
    paged.kv.free("root")
    names = [*names[1:], "hit"]
    last = {name: random_tokens(rng, 1) for name in names}
    got = paged.step(last)
    for name in names:
        assert_same(got[name], dense_logits(model, paged.tokens[name])[-1:])
