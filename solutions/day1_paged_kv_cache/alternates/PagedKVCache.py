"""Other right ways to a `PagedKVCache`."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from grader.mutants import alternate
from tinyllm.kv_cache.storage import PagedKVCache


@alternate
class BlocksAndOffsets(PagedKVCache):
    """Sees the pool as blocks, [L, N, P, Hkv, D], and splits each slot into block and offset."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.k_blocks, self.v_blocks = (pool.unflatten(1, (-1, self.block_size)) for pool in (self.k, self.v))

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        blocks, offsets = slot_mapping // self.block_size, slot_mapping % self.block_size
        for pool, new in ((self.k_blocks, k), (self.v_blocks, v)):
            pool[layer, blocks, offsets] = new.to(pool.dtype)

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        blocks, offsets = slots // self.block_size, slots % self.block_size
        return self.k_blocks[layer, blocks, offsets], self.v_blocks[layer, blocks, offsets]

    def copy_block(self, source: int, target: int) -> None:
        self.k_blocks[:, target] = self.k_blocks[:, source]
        self.v_blocks[:, target] = self.v_blocks[:, source]


@alternate
class KeysAndValuesTogether(PagedKVCache):
    """One tensor for K and V, [2, L, N * P, Hkv, D]; scatter and gather along its slots."""

    def __init__(self, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.kv = torch.stack([self.k, self.v])
        self.k, self.v = self.kv.unbind()

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        new = torch.stack([k, v]).to(self.kv.dtype)
        rows = slot_mapping[None, :, None, None].expand_as(new)
        self.kv[:, layer].scatter_(1, rows, new)

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.kv[:, layer, slots]
        return k, v

    def copy_block(self, source: int, target: int) -> None:
        blocks = self.kv.unflatten(2, (-1, self.block_size))
        blocks[:, :, target].copy_(blocks[:, :, source])


@alternate
class OneTokenAtATime(PagedKVCache):
    """Loops over slots: slow and plain."""

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        for token, slot in enumerate(slot_mapping.tolist()):
            self.k[layer, slot].copy_(k[token])
            self.v[layer, slot].copy_(v[token])

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (pool.new_empty(*slots.shape, *pool.shape[2:]) for pool in (self.k, self.v))
        for place, slot in np.ndenumerate(slots.numpy()):
            k[place] = self.k[layer, slot]
            v[place] = self.v[layer, slot]
        return k, v

    def copy_block(self, source: int, target: int) -> None:
        for offset in range(self.block_size):
            for pool in (self.k, self.v):
                pool[:, target * self.block_size + offset] = pool[:, source * self.block_size + offset]
