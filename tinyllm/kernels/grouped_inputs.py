"""Inputs of the grouped product with guard zones, as `guards` has those of attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tinyllm.kernels.cases import GroupedCase
from tinyllm.kernels.guards import CANARY, guarded

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class GroupedInputs:
    """Guarded tensors of one case.

    Attributes:
        a: [rows, depth]; NaN in rows that no pair with an expert has.
        w: [E, N, depth]; NaN in the matrices of experts without a pair.
        blocks: sorted_token_ids, expert_ids and num_tokens_post_padded, as `moe_align_block_size` returns them. The
            experts come in any order, and the pairs of each as well; pairs without one are in blocks of expert -1.
        topk_ids: [rows, pairs a row], the expert of each pair, -1 where it has none. On the CPU: it is for the oracle.
        topk_weights: a weight a pair, NaN where it has no expert; None where the case is not weighted.
        out: [pairs, N] of canaries.
        watched: every buffer, guards included, by name.
    """

    a: Tensor
    w: Tensor
    blocks: tuple[Tensor, Tensor, Tensor]
    topk_ids: Tensor
    topk_weights: Tensor | None
    out: Tensor
    watched: dict[str, Tensor]


def make_grouped_inputs(case: GroupedCase, device: str, seed: int = 0) -> GroupedInputs:
    """Random inputs of a case, to the last bit the same on every CPU."""
    generator = torch.Generator().manual_seed(seed)
    dtype: torch.dtype = getattr(torch, case.dtype)
    ids = torch.tensor([e for e, n in enumerate(case.counts) for _ in range(n)] + [-1] * case.absent)
    ids = ids[torch.randperm(len(ids), generator=generator)]
    topk_ids = ids.view(-1, case.pairs_per_row)
    a = numbers((len(topk_ids), case.depth), 16.0 if case.large else 0.0, generator)
    w = numbers((len(case.counts), case.columns, case.depth), 32.0 if case.large else 0.0, generator)
    w /= 1.0 if case.large else case.depth**0.5
    weights = torch.rand(len(ids), generator=generator) / (8 if case.large else 1)
    a[(topk_ids < 0).all(1)] = NAN
    w[[expert for expert, count in enumerate(case.counts) if not count]] = NAN
    weights[ids < 0] = NAN

    watched: dict[str, Tensor] = {}

    def watch(name: str, content: Tensor, fill: float, room: int = 0) -> Tensor:
        wide = torch.full((*content.shape[:-1], content.shape[-1] + room), fill, dtype=content.dtype)
        wide[..., : content.shape[-1]] = content
        watched[name], copy = guarded(wide, fill, device)
        return copy[..., : content.shape[-1]]

    sorted_ids, expert_ids, num_padded = blocks_of(ids, case.block_size, generator)
    return GroupedInputs(
        a=watch("a", a.to(dtype), NAN, case.room),
        w=watch("w", w.to(dtype), NAN, case.room),
        blocks=(
            watch("sorted_token_ids", sorted_ids, 0),
            watch("expert_ids", expert_ids, 0),
            watch("num_tokens_post_padded", num_padded, 0),
        ),
        topk_ids=topk_ids,
        topk_weights=watch("topk_weights", weights.to(getattr(torch, case.weighted)), NAN) if case.weighted else None,
        out=watch("out", torch.full((len(ids), case.columns), CANARY, dtype=dtype), CANARY),
        watched=watched,
    )


def numbers(shape: tuple[int, ...], low: float, generator: torch.Generator) -> Tensor:
    """Random numbers from -1 to 1, or from `low` to twice that."""
    uniform = torch.rand(shape, generator=generator)
    return low * (1 + uniform) if low else 2 * uniform - 1


def blocks_of(ids: Tensor, block_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """The blocks of each expert's pairs, and one more behind them that is not in use."""
    num_pairs, sorted_ids, expert_ids = len(ids), list[int](), list[int]()
    experts = sorted(set(ids.tolist()))
    for place in torch.randperm(len(experts), generator=generator).tolist():
        pairs = (ids == experts[place]).nonzero().flatten()
        own = pairs[torch.randperm(len(pairs), generator=generator)].tolist()
        own += [num_pairs] * (-len(own) % block_size)
        sorted_ids += own
        expert_ids += [experts[place]] * (len(own) // block_size)
    used = torch.tensor([len(sorted_ids)], dtype=torch.int32)
    sorted_ids += [num_pairs] * block_size
    return torch.tensor(sorted_ids, dtype=torch.int32), torch.tensor([*expert_ids, -1], dtype=torch.int32), used
