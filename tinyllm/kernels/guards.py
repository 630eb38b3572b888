"""Inputs with guard zones: what a kernel must not read is NaN, and what it must not write is watched.

A read outside the tensors, of another sequence's block, of a slot past the context, or of the projection's other parts
ends up as NaN in the output. A write outside its place changes a canary.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from tinyllm.kernels.cases import Case

#: Numbers before and after a tensor; a multiple of 16, so that the tensor is aligned as others are.
GUARD = 4096
#: What the output is filled with beforehand: exact in every dtype, and no softmax average of normal numbers.
CANARY = 1000.0


class Watched(Protocol):
    """Inputs of which every buffer is watched, guards included, by name."""

    @property
    def watched(self) -> dict[str, Tensor]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Inputs:
    """Guarded tensors of one case.

    Attributes:
        q, k, v: [T, heads, D], views into one projection [T, Hq + 2 Hkv, D] as in the model. Of the three a kernel
            gets q, or k and v; the rest is NaN.
        k_cache, v_cache: [num_slots, Hkv, D]; NaN but in the slots below a context length.
        block_tables: [B, max_blocks + 1]; past the context they name a block that is all NaN.
        slot_mapping: [T], the slot of each new token; every fourth is -1.
        out: [T, Hq, D] of canaries.
        watched: every buffer, guards included, by name.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    k_cache: Tensor
    v_cache: Tensor
    block_tables: Tensor
    context_lens: Tensor
    query_start_loc: Tensor
    slot_mapping: Tensor
    out: Tensor
    watched: dict[str, Tensor]


def make_inputs(case: Case, device: str, seed: int = 0) -> Inputs:
    """Random inputs of a case."""
    generator = torch.Generator().manual_seed(seed)
    dtype: torch.dtype = getattr(torch, case.dtype)
    num_tokens = sum(case.query_lens)
    tables, slots, pools = random_pool(case, dtype, generator)
    heads = (case.num_heads, case.num_kv_heads, case.num_kv_heads)
    projection = torch.full((num_tokens, sum(heads), case.head_dim), float("nan"), dtype=dtype)
    parts = projection.split(heads, dim=1)
    for part in parts[1:] if case.kernel == "store_kv" else parts[:1]:
        part.copy_(torch.randn(part.shape, generator=generator) * case.sharpness)
    new_slots = [own[len(own) - query_len :] for own, query_len in zip(slots, case.query_lens, strict=True) if len(own)]
    slot_mapping = torch.cat(new_slots)
    slot_mapping[3::4] = -1
    nan, unused_block = float("nan"), int(tables[0, -1])
    canaries = torch.full((num_tokens, case.num_heads, case.head_dim), CANARY, dtype=dtype)
    context_lens = torch.tensor(case.context_lens, dtype=torch.int32)
    query_start_loc = torch.tensor([0, *accumulate(case.query_lens)], dtype=torch.int32)

    watched: dict[str, Tensor] = {}

    def watch(name: str, content: Tensor, fill: float) -> Tensor:
        watched[name], copy = guarded(content, fill, device)
        return copy

    q, k, v = watch("projection", projection, nan).split(heads, dim=1)
    return Inputs(
        q,
        k,
        v,
        k_cache=watch("K pool", pools[0], nan),
        v_cache=watch("V pool", pools[1], nan),
        block_tables=watch("block_tables", tables, unused_block),
        context_lens=watch("context_lens", context_lens, 1),
        query_start_loc=watch("query_start_loc", query_start_loc, 1),
        slot_mapping=watch("slot_mapping", slot_mapping, -1),
        out=watch("out", canaries, CANARY),
        watched=watched,
    )


def guarded(content: Tensor, fill: float, device: str) -> tuple[Tensor, Tensor]:
    """A copy of `content` on the device, in the middle of a larger buffer of `fill`.

    Returns:
        The buffer, flat, and the copy.
    """
    whole = torch.full((content.numel() + 2 * GUARD,), fill, dtype=content.dtype, device=device)
    return whole, whole[GUARD : GUARD + content.numel()].view(content.shape).copy_(content)


def random_pool(
    case: Case, dtype: torch.dtype, generator: torch.Generator
) -> tuple[Tensor, list[Tensor], tuple[Tensor, Tensor]]:
    """A pool with its blocks in random order.

    Returns:
        The block tables [B, max_blocks + 1], the slots of each sequence, and K and V: NaN in all other slots.
    """
    size = case.block_size
    blocks = [-(-length // size) for length in case.context_lens]
    order = torch.randperm(sum(blocks) + 1, generator=generator).to(torch.int32)  # the last is nobody's: all NaN
    tables = order[-1].repeat(len(blocks), max(blocks) + 1)
    shape = (len(order) * size, case.num_kv_heads, case.head_dim)
    k_cache, v_cache = torch.full(shape, float("nan"), dtype=dtype), torch.full(shape, float("nan"), dtype=dtype)
    slots = []
    for i, (first, length) in enumerate(zip(accumulate([0, *blocks[:-1]]), case.context_lens, strict=True)):
        tables[i, : blocks[i]] = order[first : first + blocks[i]]
        positions = torch.arange(length)
        slots.append(tables[i, positions // size].long() * size + positions % size)
        for pool in (k_cache, v_cache):
            pool[slots[i]] = torch.randn(length, *shape[1:], generator=generator).to(dtype)
    return tables, slots, (k_cache, v_cache)


def snapshot(inputs: Watched) -> dict[str, Tensor]:
    """Copies of all buffers, to see later which have changed."""
    return {name: whole.clone() for name, whole in inputs.watched.items()}


def changed(inputs: Watched, before: dict[str, Tensor]) -> list[str]:
    """Names of the buffers that are not what they were; NaN equals NaN."""
    return [
        name
        for name, whole in inputs.watched.items()
        if not torch.equal(whole.view(torch.uint8), before[name].view(torch.uint8))
    ]
