"""The pool's memory: K and V of every slot of every layer."""

from __future__ import annotations

import torch
from torch import Tensor


class PagedKVCache:
    """K and V in N blocks of P slots for each of L layers.

    Attributes:
        k, v: [L, N * P, Hkv, D]; slot s of block b is row `b * P + s`. The same two tensors as long as the cache lives.
    """

    def __init__(
        self,
        num_layers: int,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
    ) -> None:
        self.block_size = block_size
        shape = (num_layers, num_blocks * block_size, num_kv_heads, head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        """Store the K and V of T tokens, in the pool's dtype.

        Args:
            k, v: [T, Hkv, D], any strides and dtype.
            slot_mapping: [T] int64, the slot of each token.
        """
        self.k[layer].index_copy_(0, slot_mapping, k.to(self.k.dtype))
        self.v[layer].index_copy_(0, slot_mapping, v.to(self.v.dtype))

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Read K and V back, in the order of `slots`.

        Args:
            slots: int64 of any shape, for example [context_len] or [B, max_context_len].

        Returns:
            K and V, each [*slots.shape, Hkv, D].
        """
        flat = slots.reshape(-1)
        shape = (*slots.shape, *self.k.shape[2:])
        return self.k[layer].index_select(0, flat).view(shape), self.v[layer].index_select(0, flat).view(shape)

    def copy_block(self, source: int, target: int) -> None:
        """Copy all slots of block `source` to block `target`, in every layer."""
        size = self.block_size
        for pool in (self.k, self.v):
            pool[:, target * size : (target + 1) * size] = pool[:, source * size : (source + 1) * size]
