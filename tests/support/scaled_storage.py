"""A pool whose blocks carry something beside K and V: int8 with a scale for each slot."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ScaledKVCache:
    """Takes the place of `PagedKVCache`. Symmetric int8, one scale a slot for all its heads: enough to get lost."""

    def __init__(
        self,
        num_layers: int,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: Any = "cpu",
    ) -> None:
        self.block_size, self.dtype = block_size, dtype
        shape = (2, num_layers, num_blocks * block_size, num_kv_heads, head_dim)
        self.numbers = torch.zeros(shape, dtype=torch.int8, device=device)
        self.scales = torch.full((*shape[:3], 1, 1), torch.nan, dtype=torch.float32, device=device)

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        kv = torch.stack((k, v)).float()
        scales = kv.abs().amax((2, 3), keepdim=True).clamp(min=1e-30) / 127
        self.numbers[:, layer, slot_mapping] = (kv / scales).round().clamp(-127, 127).to(torch.int8)
        self.scales[:, layer, slot_mapping] = scales

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (self.numbers[:, layer, slots] * self.scales[:, layer, slots]).to(self.dtype)
        return k, v

    def copy_block(self, source: int, target: int) -> None:
        size = self.block_size
        for pool in (self.numbers, self.scales):
            pool[:, :, target * size : (target + 1) * size] = pool[:, :, source * size : (source + 1) * size]
