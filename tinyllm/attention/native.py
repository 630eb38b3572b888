"""Attention over the paged cache by the C kernel, for serving on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tinyllm.attention.base import AttentionBackend
from tinyllm.attention.metadata import AttentionMetadata
from tinyllm.attention.paged_attention import paged_attention
from tinyllm.attention.torch import attend_chunks, chunks_of
from tinyllm.kernels.native import library, paged_decode
from tinyllm.model.ops import Attend

#: Longest chunk whose tokens the kernel takes one by one; longer ones are worth a matmul.
MAX_CHUNK = 32


class NativeAttention(AttentionBackend):
    """Decodes and short chunks of prompt by the C kernel, all in one call; longer chunks by `paged_attention`."""

    def __init__(self, chunk_attention: Callable[..., Tensor] = paged_attention) -> None:
        """Compile the kernel where that has not been done.

        Args:
            chunk_attention: for long chunks; the part `paged_attention`.

        Raises:
            NativeUnavailable: it cannot be compiled.
        """
        library()
        self.chunk_attention = chunk_attention

    def plan(self, metadata: AttentionMetadata, cache: Any) -> Attend:
        """See `AttentionBackend.plan`."""
        query_lens = metadata.query_start_loc.diff()
        chunks = chunks_of(metadata, (query_lens > MAX_CHUNK).nonzero().flatten().tolist())
        tokens = single_tokens(metadata.context_lens, metadata.query_start_loc, MAX_CHUNK)
        singles = (*tokens, metadata.block_tables, metadata.block_size)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.write(layer, k, v, metadata.slot_mapping)
            out = torch.empty(q.shape)
            k_cache, v_cache = cache.k[layer], cache.v[layer]
            paged_decode(q, k_cache, v_cache, *singles, out)
            if chunks is not None:
                attend_chunks(chunks, self.chunk_attention, q, k_cache, v_cache, metadata.block_size, out)
            return out

        return attend


def single_tokens(context_lens: Tensor, query_start_loc: Tensor, max_chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """The tokens of all chunks of at most `max_chunk`, each as a query of its own.

    Args:
        context_lens, query_start_loc: as in `AttentionMetadata`.

    Returns:
        Their rows in the batch [n] int64, the sequence of each [n] int64, and how many positions it sees [n] int32.
    """
    query_lens = query_start_loc.diff()
    sequences = torch.arange(len(query_lens)).repeat_interleave(query_lens)
    rows = torch.arange(len(sequences))
    later = query_start_loc[1:][sequences] - rows - 1  # tokens of the same sequence that come after it
    short = query_lens[sequences] <= max_chunk
    return rows[short], sequences[short], (context_lens[sequences] - later)[short].to(torch.int32)
