"""Where experts live: spread E experts over ranks, the busiest in several copies, so that no rank waits for another."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """Which experts each rank holds.

    Attributes:
        ranks: for each rank, the ids of its experts; an id stands on as many ranks as the expert has copies.
    """

    ranks: tuple[tuple[int, ...], ...]

    def load(self, counts: Sequence[float]) -> list[float]:
        """Each rank's load, where the pairs of an expert are shared evenly among its copies."""
        copies = [sum(expert in rank for rank in self.ranks) for expert in range(len(counts))]
        return [sum(counts[expert] / copies[expert] for expert in rank) for rank in self.ranks]

    def imbalance(self, counts: Sequence[float]) -> float:
        """The busiest rank's load over the mean load; 1 is balance."""
        load = self.load(counts)
        return max(load) * len(load) / sum(load) if sum(load) else 1.0


def place_experts(counts: Sequence[float], world_size: int, num_redundant: int = 0) -> Placement:
    """Give every expert one slot and the busiest ones more, then pack the slots on ranks of equal size.

    Greedy, as DeepSeek's EPLB does it: an extra copy goes to the expert with most load a copy; no two copies share a
    rank; heavy experts are placed before light ones, each on the lightest rank that has room.

    Args:
        counts: [E], the load of each expert.
        world_size: W ranks.
        num_redundant: slots beside the E; E + num_redundant must be a multiple of W.

    Raises:
        ValueError: the slots do not divide evenly, or are more than a copy of every expert on every rank.
    """
    num_slots = len(counts) + num_redundant
    if num_slots % world_size:
        raise ValueError(
            f"{len(counts)} experts and {num_redundant} redundant slots do not spread evenly over {world_size} ranks; "
            f"{-num_slots % world_size} more redundant slots would"
        )
    if num_redundant > len(counts) * (world_size - 1):
        raise ValueError(f"{num_redundant} redundant slots are more than a copy of every expert on every rank")
    copies = copies_of(counts, num_redundant, world_size)
    ranks: list[list[int]] = [[] for _ in range(world_size)]
    load = [0.0] * world_size
    # Experts with several copies first, on the ranks with most room: so no rank is left with room for those alone that
    # it has already. Then the heaviest single ones, each on the lightest rank.
    for expert in sorted(range(len(counts)), key=lambda e: (-copies[e], -counts[e], e)):
        room = [r for r in range(world_size) if len(ranks[r]) < num_slots // world_size]
        by_room = copies[expert] > 1
        room.sort(key=lambda r: (len(ranks[r]) if by_room else 0, load[r], r))
        for rank in room[: copies[expert]]:
            ranks[rank].append(expert)
            load[rank] += counts[expert] / copies[expert]
    return Placement(tuple(tuple(rank) for rank in ranks))


def copies_of(counts: Sequence[float], num_redundant: int, world_size: int) -> list[int]:
    """How many copies each expert gets: one, and each further one where the load a copy is largest."""
    copies = [1] * len(counts)
    heap = [(-count, expert) for expert, count in enumerate(counts)]
    heapq.heapify(heap)
    while num_redundant:
        _, expert = heapq.heappop(heap)
        copies[expert] += 1
        num_redundant -= 1
        if copies[expert] < world_size:
            heapq.heappush(heap, (-counts[expert] / copies[expert], expert))
    return copies
