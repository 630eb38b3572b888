"""Other right ways to a `PagedKVCache`."""

from typing import Any

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
