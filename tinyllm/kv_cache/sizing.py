"""How many bytes a token's keys and values take, and how much of a pool a reservation policy wastes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tinyllm.config import ModelConfig


def kv_bytes_per_token(config: ModelConfig, bytes_per_element: int) -> int:
    """Bytes that one token's keys and values take over all layers.

    Args:
        config: the model; L layers, Hkv key/value heads and head_dim D matter here.
        bytes_per_element: 2 for bfloat16, 4 for float32.
    """
    elements_per_layer = 2 * config.num_kv_heads * config.head_dim  # one K and one V vector per KV head
    return config.num_layers * elements_per_layer * bytes_per_element


class Snapshot(NamedTuple):
    """One request at one moment: what is in its cache, and what it will hold when it ends (tokens)."""

    num_tokens: int
    final_num_tokens: int


class Waste(NamedTuple):
    """Where the slots of a pool are, in tokens. The four add up to the slots that are taken or lost.

    The three kinds of waste are those of PagedAttention (arXiv 2309.06180, section 3.1, figure 3).

    Attributes:
        used: slots that hold the K and V of a token.
        reserved: slots kept for tokens that this request will still produce.
        internal: slots inside an allocation that no token will ever use.
        external: slots outside every allocation that are too few to be given to another request.
    """

    used: int
    reserved: int
    internal: int
    external: int

    @property
    def fraction(self) -> float:
        """Share of the slots that hold no token, 0 to 1."""
        total = sum(self)
        return (total - self.used) / total if total else 0.0


def reservation_waste(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    """Count used and wasted slots when `requests` are placed, in order, in a pool of `num_slots` tokens.

    Contiguous (`paged=False`): each request takes one region of `region` slots (the longest it may become).
    Paged (`paged=True`): each takes only as many regions (blocks) of `region` slots as its tokens need now.
    Placing stops at the first request that does not fit. What is left behind the last whole region of the pool is
    external waste, be that region taken or free; whole free regions are not waste.
    """
    used = reserved = internal = taken = 0
    for request in requests:
        num_regions = -(-request.num_tokens // region) if paged else 1
        if taken + num_regions * region > num_slots:
            break
        taken += num_regions * region
        will_use = request.num_tokens if paged else request.final_num_tokens
        used += request.num_tokens
        reserved += will_use - request.num_tokens
        internal += num_regions * region - will_use
    return Waste(used, reserved, internal, external=num_slots % region)
