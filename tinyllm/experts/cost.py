"""What a sparse layer costs: how many experts a batch touches, and the bytes that go between ranks."""

from __future__ import annotations


def touched_experts(num_tokens: int, top_k: int, num_experts: int) -> float:
    """Experts that n tokens need together, where every expert is chosen alike: E * (1 - (1 - K / E) ** n).

    Each expert that is touched has its weights read. So the time of a decode step grows with the batch on a sparse
    model, where it hardly does on a dense one. A real router chooses unevenly and touches fewer.
    """
    return num_experts * (1 - (1 - top_k / num_experts) ** num_tokens)


def touched_by_router(probabilities: list[float], num_tokens: int) -> float:
    """The same for a router that chooses expert e for a token with probability `probabilities[e]`; they sum to K."""
    return sum(1 - (1 - p) ** num_tokens for p in probabilities)


def all_to_all_bytes(num_tokens: int, top_k: int, hidden_size: int, itemsize: int, world_size: int) -> float:
    """Bytes that leave the ranks for one sparse layer, dispatch and combine, where experts are chosen alike.

    A pair's expert is on another rank with probability 1 - 1/W, and its row goes there and back.

    Args:
        num_tokens: T, of all ranks together.
        itemsize: bytes of a number.
        world_size: W, ranks that hold E / W experts each.
    """
    return 2 * num_tokens * top_k * hidden_size * itemsize * (1 - 1 / world_size)


def all_reduce_bytes(num_tokens: int, hidden_size: int, itemsize: int, world_size: int) -> float:
    """Bytes that leave the ranks for one all-reduce of [T, hidden_size] in a ring: each sends 2 (W - 1) / W of it.

    Tensor parallelism needs two a layer, one behind attention and one behind the MLP.
    """
    return 2 * (world_size - 1) * num_tokens * hidden_size * itemsize


def all_gather_bytes(num_tokens: int, hidden_size: int, itemsize: int, world_size: int) -> int:
    """Bytes that leave the ranks when each sends its share of [T, hidden_size] to all others.

    Shares are of one size, ceil(T / W) tokens: with fewer tokens than ranks some send padding.
    """
    share = -(-num_tokens // world_size)
    return (world_size - 1) * world_size * share * hidden_size * itemsize
