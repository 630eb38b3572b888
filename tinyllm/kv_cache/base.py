"""What the pool's memory must do, whatever it is made of."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class KVStorage(Protocol):
    """K and V of every slot, and whatever else a block needs to be read: scales where they are quantized, bounds.

    All of it is found by the block's id. So forks, prefix hits and preemption, which hand ids around, take it along;
    `copy_block` copies all of it. A block comes from the pool with what its last owner left: whatever `gather` needs
    for a slot, the `write` to that slot has set.
    """

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        """Store the K and V of T tokens, in the storage's own dtype.

        Args:
            layer: which of the L layers.
            k, v: [T, Hkv, D], any strides and dtype.
            slot_mapping: [T] int64, the slot of each token.
        """
        ...

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of some slots, int64 of any shape, as numbers to compute with: each [*slots.shape, Hkv, D]."""
        ...

    def copy_block(self, source: int, target: int) -> None:
        """Make block `target` equal to block `source`, in every layer."""
        ...
