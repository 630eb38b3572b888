"""Mistakes that people make in `PagedKVCache`."""

import torch
from torch import Tensor

from grader.mutants import mutant, unknown_bug, variant
from tinyllm.kv_cache.storage import PagedKVCache


@mutant
class WritesEveryLayer(PagedKVCache):
    """You write to the slots of every layer. Each layer has keys and values of its own; only `layer` is meant."""

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        self.k[:, slot_mapping] = k
        self.v[:, slot_mapping] = v


@variant(WritesEveryLayer)
class LoopsOverLayers(PagedKVCache):
    """The same, as a loop."""

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        for pool, new in ((self.k, k), (self.v, v)):
            for one_layer in pool:
                one_layer.index_copy_(0, slot_mapping, new)


@mutant
class WritesSideBySide(PagedKVCache):
    """You write the tokens one behind the other from the first slot on. Only slots of one block are neighbours: each
    token has its own slot in `slot_mapping`."""

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        start = int(slot_mapping[0])
        self.k[layer, start : start + len(k)] = k
        self.v[layer, start : start + len(v)] = v


@variant(WritesSideBySide)
class CountsUpFromTheFirstSlot(PagedKVCache):
    """The same, token by token."""

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        slot = slot_mapping[0].item()
        for token in range(len(slot_mapping)):
            self.k[layer, slot + token], self.v[layer, slot + token] = k[token], v[token]


@mutant
class StoresKeysTwice(PagedKVCache):
    """The pool of values holds the keys."""

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        self.k[layer].index_copy_(0, slot_mapping, k)
        self.v[layer].index_copy_(0, slot_mapping, k)


@variant(StoresKeysTwice)
class WritesBothPoolsFromKeys(PagedKVCache):
    """The same, with both pools in a loop."""

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        for pool in (self.k, self.v):
            pool[layer, slot_mapping] = k


@mutant
class ExpectsContiguousInput(PagedKVCache):
    """Your `write` fails, or stores the wrong numbers, when K and V are not contiguous in memory. A model hands over
    slices of one fused projection: `view` cannot flatten these."""

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        num_kv_heads, head_dim = self.k.shape[2:]
        rows = (slot_mapping[:, None] * num_kv_heads + torch.arange(num_kv_heads)).flatten()
        self.k[layer].view(-1, head_dim)[rows] = k.view(-1, head_dim)
        self.v[layer].view(-1, head_dim)[rows] = v.view(-1, head_dim)


@variant(ExpectsContiguousInput)
class FlattensWithView(PagedKVCache):
    """The same, with all numbers of the tokens in one row."""

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        shape = (len(slot_mapping), *self.k.shape[2:])
        flat_k, flat_v = k.view(k.numel()), v.view(v.numel())
        for token, slot in enumerate(slot_mapping.tolist()):
            self.k[layer, slot] = flat_k.view(shape)[token]
            self.v[layer, slot] = flat_v.view(shape)[token]


@mutant
class GathersInPoolOrder(PagedKVCache):
    """You return the slots in the order of the pool. The order of `slots` is the order of the tokens."""

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        ordered = slots.flatten().sort().values.view(slots.shape)
        return self.k[layer, ordered], self.v[layer, ordered]


@variant(GathersInPoolOrder)
class SortsTheSlots(PagedKVCache):
    """The same, walking over the pool."""

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        wanted = slots.flatten().tolist()
        rows = [slot for slot in range(self.k.shape[1]) for _ in range(wanted.count(slot))]
        shape = (*slots.shape, *self.k.shape[2:])
        return self.k[layer][rows].reshape(shape), self.v[layer][rows].reshape(shape)


@mutant
class GathersNeighbours(PagedKVCache):
    """You read as many slots as are asked for, one behind the other from the first. The blocks of a sequence lie
    anywhere in the pool."""

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        first = int(slots.flatten()[0])
        last = first + slots.numel()
        return self.k[layer, first:last], self.v[layer, first:last]


@variant(GathersNeighbours)
class ReadsOnFromTheFirst(PagedKVCache):
    """The same, as the front of what follows the first slot."""

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (pool[layer][slots.reshape(-1)[0].item() :] for pool in (self.k, self.v))
        return k[: slots.numel()], v[: slots.numel()]


@mutant
class FlattensTheSlots(PagedKVCache):
    """Your result is a flat row of tokens. `slots` may be of any shape, such as [B, max_context_len], and the result
    begins with that shape."""

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        flat = slots.reshape(-1)
        return self.k[layer].index_select(0, flat), self.v[layer].index_select(0, flat)


@variant(FlattensTheSlots)
class StacksTokens(PagedKVCache):
    """The same, token by token."""

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.stack([self.k[layer], self.v[layer]])
        rows = both[:, slots.flatten().tolist()]
        return rows[0], rows[1]


@mutant
class CopiesOneLayer(PagedKVCache):
    """You copy a block in the first layer only. A block holds P slots of every layer."""

    def copy_block(self, source: int, target: int) -> None:
        size = self.block_size
        for pool in (self.k[0], self.v[0]):
            pool[target * size : (target + 1) * size] = pool[source * size : (source + 1) * size]


@variant(CopiesOneLayer)
class CopiesSlotsOfOneLayer(PagedKVCache):
    """The same, slot by slot."""

    def copy_block(self, source: int, target: int) -> None:
        for offset in range(self.block_size):
            old, new = source * self.block_size + offset, target * self.block_size + offset
            self.k[:1, new] = self.k[:1, old]
            self.v[:1, new] = self.v[:1, old]


@unknown_bug
class AlwaysTheFirstLayer(PagedKVCache):
    """Writes to layer 0 and reads from it, whatever the layer."""

    def write(self, layer: int, k: Tensor, v: Tensor, slot_mapping: Tensor) -> None:
        super().write(0, k, v, slot_mapping)

    def gather(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        return super().gather(0, slots)
