"""Attention over the paged cache in plain torch: it runs everywhere, and is the oracle for the kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.attention.base import AttentionBackend
from tinyllm.attention.metadata import AttentionMetadata
from tinyllm.attention.paged_attention import paged_attention
from tinyllm.model.ops import Attend

#: Sequences whose context is at least this share of the longest in their group are padded to it and run together.
GROUP_FILL = 0.7

#: Bytes of K that a group gathers at most, and of V: what stays in the processor's cache until attention reads it.
GROUP_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Sequences with one query token each and contexts of similar length: one padded attention call.

    Attributes:
        rows: [b] int64, their tokens in the flattened batch.
        slots: [b, max_context] int64, the slot of every position; padding repeats the first.
        bias: [b, 1, 1, max_context], added to the scores: 0, and minus infinity at padding.
    """

    rows: Tensor
    slots: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True)
class Chunks:
    """The sequences with several query tokens each, as a batch of their own.

    Attributes:
        rows: [t] int64, their tokens in the flattened batch.
        block_tables, context_lens, query_start_loc: as in `AttentionMetadata`, of these sequences alone.
    """

    rows: Tensor
    block_tables: Tensor
    context_lens: Tensor
    query_start_loc: Tensor


class TorchAttention(AttentionBackend):
    """Chunks of prompt by `paged_attention`, sequence after sequence; decodes of similar length in one padded call."""

    def __init__(self, chunk_attention: Callable[..., Tensor] = paged_attention, group_decodes: bool = True) -> None:
        """Choose the function, the reference's or a learner's.

        Args:
            chunk_attention: attends for one sequence after another; the part `paged_attention`.
            group_decodes: False gives it the decodes too.
        """
        self.chunk_attention = chunk_attention
        self.group_decodes = group_decodes

    def plan(self, metadata: AttentionMetadata, cache: Any) -> Attend:
        """See `AttentionBackend.plan`."""
        query_lens = metadata.query_start_loc.diff().tolist()
        lens = metadata.context_lens.tolist()
        decodes = [i for i, query_len in enumerate(query_lens) if query_len == 1 and self.group_decodes]
        max_slots = GROUP_BYTES // (cache.k[0, 0].numel() * cache.k.element_size())
        groups = [decode_group(metadata, group, cache.k.dtype) for group in group_by_length(decodes, lens, max_slots)]
        chunks = chunks_of(metadata, [i for i in range(len(lens)) if query_lens[i] > 1 or not self.group_decodes])

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.write(layer, k, v, metadata.slot_mapping)
            out = torch.empty_like(q)
            for group in groups:
                keys, values = cache.gather(layer, group.slots)
                out.index_copy_(0, group.rows, attend_once(q.index_select(0, group.rows), keys, values, group.bias))
            if chunks is not None:
                attend_chunks(chunks, self.chunk_attention, q, cache.k[layer], cache.v[layer], metadata.block_size, out)
            return out

        return attend


def attend_once(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention of one query token a sequence.

    The Hq / Hkv query heads that share a KV head look at the same keys, as that many queries of one head would: so
    they are handed over, and K and V are read once for all of them.

    Args:
        q: [b, Hq, D].
        k, v: [b, s, Hkv, D].
        bias: broadcasts to [b, Hkv, Hq / Hkv, s], in the dtype of q.

    Returns:
        [b, Hq, D].
    """
    queries = q.view(len(q), k.shape[2], -1, q.shape[2])  # [b, Hkv, Hq / Hkv, D]
    out = F.scaled_dot_product_attention(queries, k.transpose(1, 2), v.transpose(1, 2), attn_mask=bias)
    return out.flatten(1, 2)


def group_by_length(sequences: list[int], context_lens: list[int], max_slots: int) -> list[list[int]]:
    """Split sequences into groups of similar context length, so that padding to the longest wastes little.

    A group of more than one has at most `max_slots` positions, padding included.
    """
    groups: list[list[int]] = []
    for i in sorted(sequences, key=lambda i: -context_lens[i]):
        longest = context_lens[groups[-1][0]] if groups else 0
        if groups and context_lens[i] >= GROUP_FILL * longest and (len(groups[-1]) + 1) * longest <= max_slots:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def decode_group(metadata: AttentionMetadata, sequences: list[int], dtype: torch.dtype) -> DecodeGroup:
    """The padded call of these sequences; the first has the longest context."""
    device = metadata.slot_mapping.device
    chosen = torch.tensor(sequences, device=device)
    lens = metadata.context_lens[chosen]
    longest = int(lens[0])
    slots = position_slots(metadata, chosen, longest)
    mask = torch.arange(longest, device=device) < lens[:, None]
    rows = metadata.query_start_loc[chosen].long()
    # Masked values are multiplied by 0, which does not make NaN harmless: padding must stay within the sequence.
    bias = torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill_(~mask, -torch.inf)
    return DecodeGroup(rows, torch.where(mask, slots, slots[:, :1]), bias[:, None, None, :])


def chunks_of(metadata: AttentionMetadata, sequences: list[int]) -> Chunks | None:
    """These sequences of a step as a batch of their own; None where there are none."""
    if not sequences:
        return None
    chosen = torch.tensor(sequences, device=metadata.slot_mapping.device)
    query_lens = metadata.query_start_loc.diff()[chosen]
    query_start_loc = F.pad(query_lens.cumsum(0, dtype=torch.int32), (1, 0))
    starts = metadata.query_start_loc[chosen].long() - query_start_loc[:-1]  # from a row here to its row in the step
    rows = torch.arange(int(query_start_loc[-1]), device=chosen.device) + starts.repeat_interleave(query_lens)
    return Chunks(rows, metadata.block_tables[chosen], metadata.context_lens[chosen], query_start_loc)


def attend_chunks(
    chunks: Chunks,
    chunk_attention: Callable[..., Tensor],
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_size: int,
    out: Tensor,
) -> None:
    """Attention of the chunks' tokens from their rows of q [T, Hq, D] to the same rows of out."""
    where = (chunks.block_tables, chunks.context_lens, chunks.query_start_loc, block_size)
    queries = q.index_select(0, chunks.rows)
    out.index_copy_(0, chunks.rows, chunk_attention(queries, k_cache, v_cache, *where))


def position_slots(metadata: AttentionMetadata, sequences: Tensor, num_positions: int) -> Tensor:
    """[b, num_positions] int64: the slot of each position of the given sequences, through their block tables."""
    positions = torch.arange(num_positions, device=sequences.device)
    blocks = metadata.block_tables[sequences][:, positions // metadata.block_size].long()
    return blocks * metadata.block_size + positions % metadata.block_size
