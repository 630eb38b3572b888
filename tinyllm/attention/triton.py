"""Attention over the paged cache by Triton kernels."""

from __future__ import annotations

from functools import cache as memoised
from typing import Any

import torch
from torch import Tensor

from tinyllm.attention.base import AttentionBackend
from tinyllm.attention.metadata import AttentionMetadata
from tinyllm.kernels.paged_decode_split import choose_split_size
from tinyllm.kernels.runtime import INTERPRETED
from tinyllm.model.ops import Attend
from tinyllm.parts import Parts, resolve


class TritonAttention(AttentionBackend):
    """Store with one kernel, then attend: decodes, in splits where the batch is small, and chunks of prompt.

    A step neither waits for the GPU nor takes a shape from its values, as a CUDA graph needs it. The kernels read and
    write the tensors `k` and `v` of the cache: its methods `write` and `gather`, the reference's or a learner's, are
    not called.

    Attributes:
        sliding_window: a token sees itself and the `sliding_window - 1` before it; None for all.
        split_size: positions of a split in decode; None to choose by the size of the batch and the GPU.
    """

    def __init__(
        self, sliding_window: int | None = None, split_size: int | None = None, parts: Parts | None = None
    ) -> None:
        """Take the kernels from `parts`, by default the reference's."""
        parts = parts or resolve()
        self.supports_cuda_graphs = not INTERPRETED
        self.sliding_window = sliding_window
        self.split_size = split_size
        self._store, self._prefill = parts["store_kv"], parts["paged_prefill"]
        self._decode, self._decode_split = parts["paged_decode"], parts["paged_decode_split"]

    def plan(self, metadata: AttentionMetadata, cache: Any) -> Attend:
        """See `AttentionBackend.plan`."""
        max_query_len, has_decodes = metadata.max_query_len, metadata.min_query_len == 1
        split_size = self._split_size(metadata, cache) if has_decodes else None
        window = self.sliding_window
        where = (metadata.block_tables, metadata.context_lens, metadata.query_start_loc, metadata.block_size)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            k_cache, v_cache = cache.k[layer], cache.v[layer]
            self._store(k, v, k_cache, v_cache, metadata.slot_mapping)
            out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
            if has_decodes and split_size is not None:
                self._decode_split(q, k_cache, v_cache, *where, split_size=split_size, sliding_window=window, out=out)
            elif has_decodes:
                self._decode(q, k_cache, v_cache, *where, sliding_window=window, out=out)
            if max_query_len > 1:
                self._prefill(
                    q,
                    k_cache,
                    v_cache,
                    *where,
                    max_query_len=max_query_len,
                    min_query_len=2,
                    sliding_window=window,
                    out=out,
                )
            return out

        return attend

    def _split_size(self, metadata: AttentionMetadata, cache: Any) -> int | None:
        """The split size for this batch; from shapes alone, so that nothing waits for the GPU."""
        if self.split_size is not None:
            return self.split_size
        max_context = metadata.block_tables.shape[1] * metadata.block_size
        if self.sliding_window is not None:
            max_context = min(max_context, self.sliding_window)
        num_programs = metadata.context_lens.shape[0] * cache.k.shape[2]
        return choose_split_size(num_programs, max_context, num_processors(cache.k.device))


@memoised
def num_processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 1 for the interpreter, which runs one program at a time."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
