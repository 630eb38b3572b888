"""The dense KV cache: any split of a sequence into steps gives the logits of one shot."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import random_model, small_config, small_sparse_config
from torch import Tensor

from tinyllm.errors import RequestError
from tinyllm.kv_cache.dense import DenseKVCache
from tinyllm.model.attention import causal_attend
from tinyllm.model.ops import LayerOps
from tinyllm.model.qwen3 import Qwen3ForCausalLM

MODEL = random_model(small_config())


def one_shot(model: Qwen3ForCausalLM, ids: Tensor) -> Tensor:
    return model.compute_logits(model(ids, torch.arange(len(ids)), LayerOps(causal_attend())))


def assert_close(ours: Tensor, expected: Tensor) -> None:
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.inference_mode()
@settings(max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 7)).filter(any), min_size=1, max_size=6
    ),
    seed=st.integers(0, 1000),
)
def test_steps_of_any_size_give_the_logits_of_one_shot(steps: list[tuple[int, int, int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    totals = [sum(step[b] for step in steps) for b in range(3)]
    sequences = [torch.randint(131, (total,), generator=generator) for total in totals]
    cache = DenseKVCache(MODEL.config, batch_size=3, max_len=64)
    logits: list[list[Tensor]] = [[], [], []]
    for query_lens in steps:
        starts = list(cache.lengths)
        new = [ids[start : start + n] for ids, start, n in zip(sequences, starts, query_lens, strict=True)]
        step = cache.step(query_lens)
        hidden = MODEL(torch.cat(new), step.positions, LayerOps(step))
        for sequence, part in enumerate(MODEL.compute_logits(hidden).split(list(query_lens))):
            logits[sequence].append(part)
    assert cache.lengths == totals
    for ids, parts in zip(sequences, logits, strict=True):
        if len(ids):
            assert_close(torch.cat(parts), one_shot(MODEL, ids))


@torch.inference_mode()
@pytest.mark.parametrize(
    "query_lens", [[20] + [1] * 20, [1] * 40, [7, 1, 16, 16]], ids=["decode", "all alone", "chunks"]
)
def test_a_mixture_of_experts_in_steps(query_lens: list[int]) -> None:
    """The groups of tokens that an expert sees differ from step to step; the logits do not."""
    model = random_model(small_sparse_config(), seed=1)
    ids = torch.randint(131, (40,), generator=torch.Generator().manual_seed(1))
    cache = DenseKVCache(model.config, max_len=40)
    logits = []
    for new in ids.split(query_lens):
        step = cache.step([len(new)])
        logits.append(model.compute_logits(model(new, step.positions, LayerOps(step))))
    assert_close(torch.cat(logits), one_shot(model, ids))


@torch.inference_mode()
def test_forgetting_the_last_tokens_leaves_the_rest() -> None:
    ids = torch.arange(20)
    cache = DenseKVCache(MODEL.config, max_len=32)
    step = cache.step([16])
    MODEL(ids[4:], step.positions, LayerOps(step))
    cache.lengths[0] = 0
    step = cache.step([12])
    MODEL(ids[:12], step.positions, LayerOps(step))
    cache.lengths[0] = 9
    step = cache.step([11])
    assert step.positions.tolist() == list(range(9, 20))
    assert_close(MODEL.compute_logits(MODEL(ids[9:], step.positions, LayerOps(step))), one_shot(MODEL, ids)[9:])


def test_it_reserves_every_position_of_every_sequence() -> None:
    config = small_config(max_position_embeddings=100)
    cache = DenseKVCache(config, batch_size=4)
    assert cache.keys.shape == (3, 4, 2, 100, 12)
    assert cache.num_bytes == 2 * 3 * 4 * 2 * 100 * 12 * 4


def test_a_sequence_that_outgrows_its_row_is_refused_and_nothing_changes() -> None:
    cache = DenseKVCache(MODEL.config, batch_size=2, max_len=8)
    cache.step([8, 3])
    with pytest.raises(RequestError, match="sequence 0 would hold 9 tokens, but the cache reserves 8"):
        cache.step([1, 1])
    assert cache.lengths == [8, 3]


def test_a_step_must_name_each_sequence_once() -> None:
    with pytest.raises(ValueError, match="1 query lengths for a cache of 2 sequences"):
        DenseKVCache(MODEL.config, batch_size=2, max_len=8).step([1])


def test_whole_rows_attend_with_gradients() -> None:
    q = torch.randn(6, 4, 8, requires_grad=True)
    k, v = torch.randn(6, 2, 8), torch.randn(6, 2, 8)
    attend = causal_attend(num_seqs=2)
    attend(0, q, k, v)[3].sum().backward()  # the first token of the second row
    assert q.grad is not None
    assert torch.equal(q.grad[:3], torch.zeros(3, 4, 8)), "the first row took part in the second"
    out = attend(0, q, k, v)
    assert torch.allclose(out[3], v[3].repeat_interleave(2, dim=0)), "a first token sees itself only"
