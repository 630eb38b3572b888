"""Other people's attention kernels, ready to be timed. Each maker returns a call, or says why there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Call = Callable[[], Tensor]

FLASHINFER_MISSING = "flashinfer is not installed (pip install flashinfer-python)"
WORKSPACE_BYTES = 256 * 2**20


def dense(arguments: Sequence[Any], context_len: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, K and V of the only sequence as [1, heads, tokens, D], K and V gathered into one piece."""
    q, k_cache, v_cache, tables, _, _, block_size = arguments
    positions = torch.arange(context_len, device=q.device)
    slots = tables[0, positions // block_size].long() * block_size + positions % block_size
    return (
        q.transpose(0, 1)[None].contiguous(),
        k_cache[slots].transpose(0, 1)[None].contiguous(),
        v_cache[slots].transpose(0, 1)[None].contiguous(),
    )


def sdpa(arguments: Sequence[Any], query_len: int, context_len: int) -> Call | str:
    """torch's `scaled_dot_product_attention`, which reads no pages; its fast path needs the whole sequence as new."""
    if query_len != context_len:
        return "its causal path aligns the first query with the first key, so it takes whole sequences only"
    q, k, v = dense(arguments, context_len)
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)


def flex_attention(arguments: Sequence[Any], query_len: int, context_len: int) -> Call | str:
    """torch's FlexAttention, compiled, with a causal block mask; it reads no pages here."""
    q, k, v = dense(arguments, context_len)
    if not q.is_cuda:
        return "it is compiled for CUDA"
    from torch.nn.attention.flex_attention import create_block_mask
    from torch.nn.attention.flex_attention import flex_attention as attention

    before = context_len - query_len

    def causal(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query + before >= key

    mask = create_block_mask(causal, None, None, query_len, context_len, device=str(q.device))
    compiled = torch.compile(attention, dynamic=False)
    return lambda: compiled(q, k, v, block_mask=mask, enable_gqa=True)[0].transpose(0, 1)


def page_table(arguments: Sequence[Any], context_lens: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """FlashInfer's page table on the device: where each sequence's pages begin, the pages, tokens in each last page."""
    tables, size = arguments[3], arguments[6]
    pages = [-(-length // size) for length in context_lens]
    starts = torch.tensor([0, *pages]).cumsum(0)
    indices = torch.cat([tables[i, :count] for i, count in enumerate(pages)])
    last = torch.tensor([length - (count - 1) * size for length, count in zip(context_lens, pages, strict=True)])
    return starts.int().to(tables.device), indices.int(), last.int().to(tables.device)


def flashinfer_decode(arguments: Sequence[Any], context_lens: Sequence[int]) -> Call | str:
    """FlashInfer's decode over the same pages."""
    if find_spec("flashinfer") is None:
        return FLASHINFER_MISSING
    flashinfer = import_module("flashinfer")
    q, cache, size = arguments[0], paged(arguments), arguments[6]
    workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=q.device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD")
    shape = (q.shape[1], cache[0].shape[2], q.shape[2], size)
    wrapper.plan(*page_table(arguments, context_lens), *shape, q_data_type=q.dtype, kv_data_type=q.dtype)
    return lambda: wrapper.run(q, cache)


def flashinfer_prefill(arguments: Sequence[Any], query_len: int, context_len: int) -> Call | str:
    """FlashInfer's prefill over the same pages."""
    if find_spec("flashinfer") is None:
        return FLASHINFER_MISSING
    flashinfer = import_module("flashinfer")
    q, cache, size = arguments[0], paged(arguments), arguments[6]
    workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=q.device)
    wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")
    shape = (q.shape[1], cache[0].shape[2], q.shape[2], size)
    table = page_table(arguments, [context_len])
    wrapper.plan(arguments[5], *table, *shape, causal=True, q_data_type=q.dtype, kv_data_type=q.dtype)
    return lambda: wrapper.run(q, cache)


def paged(arguments: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """K and V as [blocks, block_size, Hkv, D]."""
    size = arguments[6]
    k_cache, v_cache = (cache.view(-1, size, *cache.shape[1:]) for cache in arguments[1:3])
    return k_cache, v_cache


PREFILL_PEERS: dict[str, Callable[[Sequence[Any], int, int], Call | str]] = {
    "scaled_dot_product_attention": sdpa,
    "flex_attention": flex_attention,
    "flashinfer": flashinfer_prefill,
}
