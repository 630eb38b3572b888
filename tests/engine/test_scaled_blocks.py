"""The engine over a pool whose blocks carry scales: they follow forks, copies, prefix hits and preemption."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.models import NumberTokenizer, assert_no_block_lost, drain, tiny_model
from support.scaled_storage import ScaledKVCache
from torch import Tensor

from tinyllm.config import EngineConfig
from tinyllm.engine.engine import LLMEngine
from tinyllm.kv_cache.dense import attend_from
from tinyllm.parts import resolve
from tinyllm.sampling_params import SamplingParams

MODEL = tiny_model()
RNG = random.Random(5)
SHARED = [RNG.randrange(97) for _ in range(21)]
PROMPTS = [[*SHARED[: 6 + 3 * number], number] for number in range(6)]


class GatherAttention:
    """An attention backend that reads the cache through `gather` alone, so that it serves any storage."""

    supports_cuda_graphs = False

    def plan(self, metadata: Any, cache: Any) -> Callable[..., Tensor]:
        starts, size = metadata.query_start_loc.tolist(), metadata.block_size

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.write(layer, k, v, metadata.slot_mapping)
            out = torch.empty_like(q)
            for i, length in enumerate(metadata.context_lens.tolist()):
                positions, rows = torch.arange(length), slice(starts[i], starts[i + 1])
                slots = metadata.block_tables[i, positions // size].long() * size + positions % size
                keys, values = (x.transpose(0, 1) for x in cache.gather(layer, slots))
                out[rows] = attend_from(length - (rows.stop - rows.start), q[rows], keys, values)
            return out

        return attend


def engine(**options: Any) -> LLMEngine:
    config = EngineConfig.from_options(**{"block_size": 4, "num_blocks": 256, **options})
    parts = resolve({"PagedKVCache": ScaledKVCache})
    return LLMEngine(MODEL, NumberTokenizer(), config, parts, GatherAttention())  # type: ignore[arg-type]


def params(n: int) -> SamplingParams:
    return SamplingParams(max_tokens=12, n=n, temperature=0.7, seed=3, ignore_eos=True)


@pytest.fixture(scope="module")
def alone() -> dict[str, tuple[tuple[int, ...], ...]]:
    """Each request by itself in a new pool, with nothing shared but the prompt of its own continuations."""
    outputs = {}
    for number, prompt in enumerate(PROMPTS):
        one = engine(enable_prefix_caching=False)
        one.add_request(prompt, params(1 + number % 3), str(number))
        outputs |= drain(one)
    return outputs


@pytest.mark.parametrize(
    ("options", "happens"),
    [
        ({}, "num_prefix_tokens_hit"),
        ({"num_blocks": 17}, "num_preempted"),
        ({"num_blocks": 17, "max_num_batched_tokens": 7}, "num_preempted"),
    ],
    ids=["prefix hits", "preemption", "chunks"],
)
def test_whatever_is_shared_the_tokens_are_the_same(
    alone: dict[str, tuple[tuple[int, ...], ...]], options: dict[str, int], happens: str
) -> None:
    together = engine(**options)
    outputs = {}
    for wave in (range(0, 6, 2), range(1, 6, 2)):  # the second finds the first one's blocks in the prefix cache
        for number in wave:
            together.add_request(PROMPTS[number], params(1 + number % 3), str(number))
        outputs |= drain(together)
    assert outputs == alone
    assert getattr(together.stats(), happens) > 0
    assert_no_block_lost(together)


def test_the_toy_loses_scales_where_a_copy_forgets_them(alone: dict[str, tuple[tuple[int, ...], ...]]) -> None:
    """The test above can fail: continuations of a prompt whose last block is partly filled are copies."""

    class Forgetful(ScaledKVCache):
        def copy_block(self, source: int, target: int) -> None:
            before = self.scales.clone()
            super().copy_block(source, target)
            self.scales = before

    config = EngineConfig.from_options(block_size=4, num_blocks=256)
    parts = resolve({"PagedKVCache": Forgetful})
    broken = LLMEngine(MODEL, NumberTokenizer(), config, parts, GatherAttention())  # type: ignore[arg-type]
    broken.add_request(PROMPTS[2], params(3), "2")
    assert drain(broken)["2"] != alone["2"]
