"""The oracle itself: it agrees with torch's attention, and merging states is attention over both sets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.kernels import reference
from tinyllm.kernels.cases import DECODES, PREFILLS, Case
from tinyllm.kernels.guards import make_inputs
from tinyllm.kernels.selftest import attention_inputs


@pytest.mark.parametrize("case", [*DECODES, *PREFILLS], ids=lambda case: case.name)
def test_paged_attention_is_torch_attention_over_the_gathered_context(case: Case) -> None:
    inputs = make_inputs(case, "cpu")
    got, lse = reference.paged_attention_with_lse(
        *attention_inputs(inputs, case), sliding_window=case.sliding_window, dtype=torch.float64
    )
    assert got.shape == inputs.q.shape
    starts = inputs.query_start_loc.tolist()
    for i, context_len in enumerate(case.context_lens):
        q = inputs.q[starts[i] : starts[i + 1]].double()
        if context_len == 0:
            assert (got[starts[i]] == 0).all()
            assert (lse[starts[i]] == float("-inf")).all()
            continue
        slots = [
            int(inputs.block_tables[i, p // case.block_size]) * case.block_size + p % case.block_size
            for p in range(context_len)
        ]
        k, v = inputs.k_cache[slots].double(), inputs.v_cache[slots].double()
        visible = torch.ones(len(q), context_len).tril(context_len - len(q)).bool()
        if case.sliding_window:
            visible &= torch.ones(len(q), context_len).triu(context_len - len(q) - case.sliding_window + 1).bool()
        expected = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            attn_mask=visible,
            enable_gqa=True,
        )[0].transpose(0, 1)
        torch.testing.assert_close(got[starts[i] : starts[i + 1]], expected, rtol=1e-10, atol=1e-10)


@given(
    split=st.integers(0, 12),
    scale=st.sampled_from([0.1, 1.0, 1000.0]),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 1)]),
    seed=st.integers(0, 99),
)
def test_merging_two_parts_is_attention_over_the_whole(
    split: int, scale: float, heads: tuple[int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(3, heads[0], 8, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 12, heads[1], 8, generator=generator, dtype=torch.float64)
    visible = torch.rand(3, 12, generator=generator) < 0.7
    whole = reference.attend(q, k, v, visible, scale)
    parts = [
        reference.attend(q, k[part], v[part], visible[:, part], scale) for part in (slice(0, split), slice(split, 12))
    ]
    for first, second in (parts, parts[::-1]):
        out, lse = reference.merge_attention_states(*first, *second)
        torch.testing.assert_close(out, whole[0])
        torch.testing.assert_close(lse, whole[1])


def test_an_empty_part_is_not_read() -> None:
    out, lse = torch.randn(2, 3, 8), torch.randn(2, 3)
    nothing, empty = torch.full_like(out, float("nan")), torch.full_like(lse, float("-inf"))
    for merged in (
        reference.merge_attention_states(out, lse, nothing, empty),
        reference.merge_attention_states(nothing, empty, out, lse),
    ):
        torch.testing.assert_close(merged, (out, lse))
    both_empty = reference.merge_attention_states(nothing, empty, nothing, empty)
    assert (both_empty[0] == 0).all()
    assert (both_empty[1] == float("-inf")).all()


def test_store_kv_skips_minus_one() -> None:
    k, v = torch.randn(2, 3, 2, 4)
    k_cache, v_cache = torch.zeros(2, 5, 2, 4)
    reference.store_kv(k, v, k_cache, v_cache, torch.tensor([4, -1, 0]))
    assert torch.equal(k_cache[[4, 0]], k[[0, 2]])
    assert torch.equal(v_cache[[4, 0]], v[[0, 2]])
    assert not k_cache[1:4].any()
