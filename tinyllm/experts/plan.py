"""How a sparse layer spreads over many ranks: what each holds, reads, computes and sends, before any is started."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tinyllm.experts.cost import all_reduce_bytes, all_to_all_bytes, touched_experts


@dataclass(frozen=True, slots=True)
class SparseShape:
    """The sizes of a sparse layer; by default those of Qwen3-30B-A3B in bfloat16.

    Attributes:
        num_experts: E.
        top_k: K.
        hidden_size: H.
        intermediate_size: I, the width inside an expert.
        itemsize: bytes of a number.
    """

    num_experts: int = 128
    top_k: int = 8
    hidden_size: int = 2048
    intermediate_size: int = 768
    itemsize: int = 2

    @property
    def expert_bytes(self) -> int:
        """The weights of one expert: gate, up and down."""
        return 3 * self.hidden_size * self.intermediate_size * self.itemsize


@dataclass(frozen=True, slots=True)
class RankPlan:
    """One rank's part of a layer's step, on average over ranks whose experts are chosen alike.

    Attributes:
        world_size: W.
        experts: experts that it holds, E / W.
        tokens: tokens that it routes, T / W.
        rows: rows that its experts compute, T * K / W.
        touched: experts that have any row. The layer cannot take less time than to read their weights.
        bytes_held: weights of its experts.
        bytes_read: weights of the touched ones.
        bytes_sent: what it sends where rows travel to the experts and back, and each rank has tokens of its own.
        bytes_sent_all_reduce: what it sends where all ranks have all tokens and sum what their experts gave.
    """

    world_size: int
    experts: float
    tokens: float
    rows: float
    touched: float
    bytes_held: float
    bytes_read: float
    bytes_sent: float
    bytes_sent_all_reduce: float

    @property
    def rows_per_expert(self) -> float:
        """Rows of a product: below some hundreds a GPU waits for weights, and more tokens cost hardly more time."""
        return self.rows / self.touched


def plan_ranks(shape: SparseShape, num_tokens: int, world_sizes: Iterable[int] = (8, 16, 32, 64)) -> list[RankPlan]:
    """A plan for each number of ranks.

    With more ranks a rank reads fewer weights and sends less where rows travel, but what it sends for an all-reduce
    stays as large as the batch: with more than K ranks it is more.

    Args:
        num_tokens: T, of all ranks together.
        world_sizes: numbers that divide E.

    Raises:
        ValueError: a number of ranks does not divide E.
    """
    plans = []
    touched = touched_experts(num_tokens, shape.top_k, shape.num_experts)
    for world_size in world_sizes:
        if shape.num_experts % world_size:
            raise ValueError(f"{world_size} ranks cannot share {shape.num_experts} experts evenly; give a divisor")
        size = (shape.hidden_size, shape.itemsize, world_size)
        plans.append(
            RankPlan(
                world_size=world_size,
                experts=shape.num_experts / world_size,
                tokens=num_tokens / world_size,
                rows=num_tokens * shape.top_k / world_size,
                touched=touched / world_size,
                bytes_held=shape.expert_bytes * shape.num_experts / world_size,
                bytes_read=shape.expert_bytes * touched / world_size,
                bytes_sent=all_to_all_bytes(num_tokens, shape.top_k, *size) / world_size,
                bytes_sent_all_reduce=all_reduce_bytes(num_tokens, *size) / world_size,
            )
        )
    return plans
