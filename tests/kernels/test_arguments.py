"""The launchers refuse what does not fit together, and say what; none of this needs a GPU or the interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytestmark = pytest.mark.needs("triton")


def arguments(**changes: Any) -> dict[str, Any]:
    """Arguments of a decode step of two sequences, with some changed."""
    cache = torch.zeros(32, 2, 16)
    fitting: dict[str, Any] = {
        "q": torch.zeros(2, 4, 16),
        "k_cache": cache,
        "v_cache": cache.clone(),
        "block_tables": torch.zeros(2, 2, dtype=torch.int32),
        "context_lens": torch.ones(2, dtype=torch.int32),
        "query_start_loc": torch.arange(3, dtype=torch.int32),
        "block_size": 4,
        **changes,
    }
    if "k_cache" in changes and "v_cache" not in changes:
        fitting["v_cache"] = fitting["k_cache"].clone()
    return fitting


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"q": torch.zeros(2, 64)}, r"must be \[T, Hq, D\]"),
        ({"q": torch.zeros(2, 5, 16)}, "Hq a multiple of Hkv"),
        ({"q": torch.zeros(2, 4, 32)}, "Hq a multiple of Hkv"),
        ({"q": torch.zeros(2, 4, 16).double(), "k_cache": torch.zeros(32, 2, 16).double()}, "must be float16"),
        ({"q": torch.zeros(2, 4, 16).half()}, "but the pool"),
        ({"q": torch.zeros(2, 4, 300), "k_cache": torch.zeros(32, 2, 300)}, "1 to 256"),
        ({"v_cache": torch.zeros(31, 2, 16)}, "same shape"),
        ({"k_cache": torch.zeros(32, 16, 2).transpose(1, 2)}, "strides|contiguous"),
        ({"block_size": 0}, "block_size is 0"),
        ({"sliding_window": 0}, "sliding_window is 0"),
        ({"context_lens": torch.ones(3, dtype=torch.int32)}, r"\[B, max_blocks\], \[B\] and \[B \+ 1\]"),
        ({"query_start_loc": torch.arange(2, dtype=torch.int32)}, r"\[B \+ 1\]"),
        ({"context_lens": torch.ones(2)}, "context_lens is torch.float32"),
        ({"block_tables": torch.zeros(2, 4, dtype=torch.int32)[:, ::2]}, "block_tables must be contiguous in its last"),
        ({"out": torch.zeros(2, 4, 16).half()}, "out must be contiguous"),
        ({"out": torch.zeros(2, 16, 4).transpose(1, 2)}, "out must be contiguous"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    from tinyllm.kernels.paged_decode import paged_decode

    with pytest.raises(ValueError, match=words):
        paged_decode(**arguments(**changes))


def test_the_other_launchers_check_their_own() -> None:
    from tinyllm.kernels.paged_decode_split import paged_decode_split
    from tinyllm.kernels.paged_prefill import paged_prefill
    from tinyllm.kernels.store_kv import store_kv

    with pytest.raises(ValueError, match="split_size is 0"):
        paged_decode_split(**arguments(), split_size=0)
    with pytest.raises(ValueError, match="max_query_len is -1"):
        paged_prefill(**arguments(), max_query_len=-1)
    k, cache, slots = torch.zeros(3, 2, 16), torch.zeros(32, 2, 16), torch.arange(3)
    with pytest.raises(ValueError, match="both must be"):
        store_kv(k, k[:2], cache, cache.clone(), slots)
    with pytest.raises(ValueError, match=r"\[num_slots, Hkv, D\]"):
        store_kv(k, k, torch.zeros(32, 1, 16), torch.zeros(32, 1, 16), slots)
    with pytest.raises(ValueError, match=r"slot_mapping is \[2\]"):
        store_kv(k, k, cache, cache.clone(), slots[:2])
    with pytest.raises(ValueError, match="packed integers"):
        store_kv(k, k, cache, cache.clone(), slots.float())
    with pytest.raises(ValueError, match="and the pool"):
        store_kv(k.half(), k.half(), cache, cache.clone(), slots)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"a": torch.zeros(3, 15)}, r"must be \[rows, K\] and \[E, N, K\]"),
        ({"w": torch.zeros(8, 16)}, r"must be \[rows, K\] and \[E, N, K\]"),
        ({"w": torch.zeros(2, 8, 16).half()}, "both must be one of float16"),
        ({"a": torch.zeros(3, 16).double(), "w": torch.zeros(2, 8, 16).double()}, "both must be one of float16"),
        ({"a": torch.zeros(16, 3).T}, "last dimension of a and of w must be contiguous"),
        ({"w": torch.zeros(2, 16, 8).transpose(1, 2)}, "last dimension of a and of w must be contiguous"),
        ({"num_pairs": 7}, "7 pairs do not belong to 3 rows of a evenly"),
        ({"a": torch.zeros(0, 16)}, "6 pairs do not belong to 0 rows"),
        ({"sorted_token_ids": torch.zeros(33, dtype=torch.int32)}, "no whole blocks for 2 expert_ids"),
        ({"topk_weights": torch.zeros(5)}, "topk_weights must be 6 numbers"),
        ({"topk_weights": torch.zeros(12)[::2]}, "topk_weights must be 6 numbers, contiguous"),
        ({"out": torch.zeros(6, 9)}, r"out must be \[6, 8\] in torch.float32, contiguous"),
        ({"out": torch.zeros(6, 8).half()}, r"out must be \[6, 8\] in torch.float32, contiguous"),
        ({"out": torch.zeros(8, 6).T}, r"out must be \[6, 8\] in torch.float32, contiguous"),
        ({"out": torch.zeros(6, 8, device="meta")}, "on different devices"),
    ],
)
def test_a_grouped_product_that_does_not_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    from tinyllm.kernels.grouped_gemm import grouped_gemm

    fitting: dict[str, Any] = {
        "a": torch.zeros(3, 16),
        "w": torch.zeros(2, 8, 16),
        "sorted_token_ids": torch.zeros(32, dtype=torch.int32),
        "expert_ids": torch.zeros(2, dtype=torch.int32),
        "num_tokens_post_padded": torch.tensor([32], dtype=torch.int32),
        "num_pairs": 6,
    }
    with pytest.raises(ValueError, match=words):
        grouped_gemm(**{**fitting, **changes})


def test_an_unknown_backend_is_refused() -> None:
    from tinyllm.attention.registry import attention_backend

    with pytest.raises(ValueError, match='give "auto", "torch", "triton" or "native"'):
        attention_backend("flash", "cpu")


@pytest.mark.parametrize(
    ("programs", "context", "processors", "expected"),
    [(1024, 8192, 132, None), (8, 300, 132, None), (8, 4096, 132, 256), (512, 8192, 132, 4096), (8, 4096, 1, None)],
)
def test_the_batch_is_split_where_it_leaves_the_gpu_idle(
    programs: int, context: int, processors: int, expected: int | None
) -> None:
    from tinyllm.kernels.paged_decode_split import choose_split_size

    assert choose_split_size(programs, context, processors) == expected
