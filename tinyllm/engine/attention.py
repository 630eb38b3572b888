"""Attention over the paged cache: the interface, and the backend in plain torch that is the oracle for kernels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.engine.metadata import AttentionMetadata
from tinyllm.model.qwen3 import Attend

#: Sequences whose context is at least this share of the longest in their group are padded to it and run together.
GROUP_FILL = 0.7

#: Bytes of K that a group gathers at most, and of V: what stays in the processor's cache until attention reads it.
GROUP_BYTES = 2**20


class AttentionBackend(ABC):
    """A way to compute attention over the paged cache.

    Attributes:
        supports_cuda_graphs: a step of one new token a sequence neither waits for the GPU nor takes a shape or a
            Python number from a tensor's values, and it leaves padding (slot -1, context length 0) alone.
    """

    supports_cuda_graphs: bool = False

    @abstractmethod
    def plan(self, metadata: AttentionMetadata, cache: Any) -> Attend:
        """Prepare one step, once for all layers.

        Args:
            metadata: where the step's tokens belong.
            cache: the `PagedKVCache`, the reference's or a learner's.

        Returns:
            The function that every layer calls with its q, k and v.
        """


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
class Chunk:
    """A run of prompt tokens of one sequence.

    Attributes:
        start, stop: its tokens in the flattened batch.
        slots: [context_len] int64, the slot of every position of the sequence, the chunk's included.
        mask: [stop - start, context_len] bool, causal.
    """

    start: int
    stop: int
    slots: Tensor
    mask: Tensor


class TorchAttention(AttentionBackend):
    """Gather K and V through the block table, then `scaled_dot_product_attention`."""

    def plan(self, metadata: AttentionMetadata, cache: Any) -> Attend:
        """See `AttentionBackend.plan`."""
        starts = metadata.query_start_loc.tolist()
        lens = metadata.context_lens.tolist()
        sequences = range(len(lens))
        decodes = [i for i in sequences if starts[i + 1] - starts[i] == 1]
        max_slots = GROUP_BYTES // (cache.k[0, 0].numel() * cache.k.element_size())
        groups = [decode_group(metadata, group, cache.k.dtype) for group in group_by_length(decodes, lens, max_slots)]
        chunks = [prefill_chunk(metadata, i) for i in sequences if starts[i + 1] - starts[i] > 1]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache.write(layer, k, v, metadata.slot_mapping)
            out = torch.empty_like(q)
            for group in groups:
                keys, values = cache.gather(layer, group.slots)
                out.index_copy_(0, group.rows, attend_once(q.index_select(0, group.rows), keys, values, group.bias))
            for chunk in chunks:
                keys, values = cache.gather(layer, chunk.slots)
                queries = q[None, chunk.start : chunk.stop]
                out[chunk.start : chunk.stop] = attend_to(queries, keys[None], values[None], chunk.mask)[0]
            return out

        return attend


def attend_to(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention with grouped heads.

    Args:
        q: [b, t, Hq, D].
        k, v: [b, s, Hkv, D].
        mask: bool, broadcasts to [b, Hq, t, s]; True where a query may look.

    Returns:
        [b, t, Hq, D].
    """
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, enable_gqa=True
    )
    return out.transpose(1, 2)


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


def prefill_chunk(metadata: AttentionMetadata, sequence: int) -> Chunk:
    """The causal call of one sequence with several query tokens."""
    start, stop = metadata.query_start_loc[sequence : sequence + 2].tolist()
    context_len = int(metadata.context_lens[sequence])
    device = metadata.slot_mapping.device
    slots = position_slots(metadata, torch.tensor([sequence], device=device), context_len)[0]
    first = context_len - (stop - start)  # position of the chunk's first token
    mask = torch.arange(context_len, device=device) <= torch.arange(first, context_len, device=device)[:, None]
    return Chunk(start, stop, slots, mask)


def position_slots(metadata: AttentionMetadata, sequences: Tensor, num_positions: int) -> Tensor:
    """[b, num_positions] int64: the slot of each position of the given sequences, through their block tables."""
    positions = torch.arange(num_positions, device=sequences.device)
    blocks = metadata.block_tables[sequences][:, positions // metadata.block_size].long()
    return blocks * metadata.block_size + positions % metadata.block_size
