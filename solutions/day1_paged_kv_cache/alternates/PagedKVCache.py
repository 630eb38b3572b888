"""Other right ways to a `PagedKVCache`."""

import torch
from torch import Tensor

from grader.mutants import alternate
from tinyllm.kv_cache.storage import PagedKVCache


@alternate
class BlocksAndOffsets(PagedKVCache):
    """Keeps the pool as blocks, [L, N, P, Hkv, D], and splits each slot into block and offset."""

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
        shape = (num_layers, num_blocks, block_size, num_kv_heads, head_dim)
        self.k_blocks = torch.zeros(shape, dtype=dtype, device=device)
        self.v_blocks = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def k(self) -> Tensor:
        """The same memory as [L, N * P, Hkv, D]."""
        return self.k_blocks.flatten(1, 2)

    @property
    def v(self) -> Tensor:
        """The same memory as [L, N * P, Hkv, D]."""
        return self.v_blocks.flatten(1, 2)

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        blocks, offsets = slot_mapping // self.block_size, slot_mapping % self.block_size
        self.k_blocks[layer, blocks, offsets] = k.to(self.k_blocks.dtype)
        self.v_blocks[layer, blocks, offsets] = v.to(self.v_blocks.dtype)

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        blocks, offsets = slots // self.block_size, slots % self.block_size
        return self.k_blocks[layer, blocks, offsets], self.v_blocks[layer, blocks, offsets]

    def copy_block(self, source: int, target: int) -> None:
        self.k_blocks[:, target] = self.k_blocks[:, source]
        self.v_blocks[:, target] = self.v_blocks[:, source]


@alternate
class KeysAndValuesTogether(PagedKVCache):
    """One tensor for K and V, [2, L, N * P, Hkv, D]; scatter and gather along its slots."""

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
        shape = (2, num_layers, num_blocks * block_size, num_kv_heads, head_dim)
        self.kv = torch.zeros(shape, dtype=dtype, device=device)
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
        shape = (*slots.shape, *self.k.shape[2:])
        k, v = self.k.new_empty(shape), self.v.new_empty(shape)
        for row, slot in zip(range(slots.numel()), slots.flatten().tolist(), strict=True):
            k.view(-1, *shape[-2:])[row] = self.k[layer, slot]
            v.view(-1, *shape[-2:])[row] = self.v[layer, slot]
        return k, v

    def copy_block(self, source: int, target: int) -> None:
        for offset in range(self.block_size):
            for pool in (self.k, self.v):
                pool[:, target * self.block_size + offset] = pool[:, source * self.block_size + offset]
