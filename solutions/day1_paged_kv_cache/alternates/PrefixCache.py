"""Other right ways to a `PrefixCache`."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import count

from grader.mutants import alternate
from tinyllm.kv_cache.allocator import BlockAllocator
from tinyllm.kv_cache.prefix_cache import PrefixCache


@alternate
class RadixTree(PrefixCache):
    """A tree whose edges are the tokens of a block; a path from the root is a prefix. No hash is taken."""

    def __init__(self, allocator: BlockAllocator, block_size: int) -> None:
        self.allocator = allocator
        self.block_size = block_size
        self.clock = count(1)
        self.children: dict = {}  # tokens -> [children, block id or None, time of last use]

    def _path(self, token_ids: Sequence[int]) -> list[tuple[int, ...]]:
        """The tokens of each full block."""
        size = self.block_size
        return [tuple(token_ids[end - size : end]) for end in range(size, len(token_ids) + 1, size)]

    def _held(self, children: dict, depth: int = 0) -> Iterator[tuple[int, int, list]]:
        """Every node that holds a block, as (time of last use, minus its depth, node)."""
        for node in children.values():
            if node[1] is not None:
                yield node[2], -depth, node
            yield from self._held(node[0], depth + 1)

    @property
    def blocks(self) -> dict[int, int]:
        """What is cached, in the order in which it would be evicted."""
        held = sorted(self._held(self.children), key=lambda item: item[:2])
        return {id(node): node[1] for _, _, node in held}

    def match(self, token_ids: Sequence[int]) -> list[int]:
        now, children, block_ids = next(self.clock), self.children, []
        for tokens in self._path(token_ids[:-1]):
            node = children.get(tokens)
            if node is None or node[1] is None:
                break
            self.allocator.share(node[1])
            block_ids.append(node[1])
            children, node[2] = node[0], now
        return block_ids

    def insert(self, token_ids: Sequence[int], block_ids: Sequence[int]) -> None:
        now, children = next(self.clock), self.children
        for tokens, block_id in zip(self._path(token_ids), block_ids, strict=False):
            node = children.setdefault(tokens, [{}, None, now])
            if node[1] is None:
                self.allocator.share(block_id)
                node[1] = block_id
            children, node[2] = node[0], now

    def evict(self, num_blocks: int) -> int:
        held = sorted(self._held(self.children), key=lambda item: item[:2])
        victims = [node for _, _, node in held if self.allocator.ref_count(node[1]) == 1][:num_blocks]
        for node in victims:
            self.allocator.free(node[1])
            node[1] = None  # the node stays: longer prefixes may hang on it
        return len(victims)


@alternate
class WholePrefixesAndAHeap(PrefixCache):
    """Whole prefixes as keys in place of a hash chain, and a heap of uses in which all but a block's last are stale."""

    def __init__(self, allocator: BlockAllocator, block_size: int) -> None:
        self.allocator = allocator
        self.block_size = block_size
        self.time = 0
        self.ids: dict[tuple[int, ...], int] = {}
        self.last_use: dict[tuple[int, ...], tuple[int, int]] = {}
        self.heap: list[tuple[tuple[int, int], tuple[int, ...]]] = []

    @property
    def blocks(self) -> dict[tuple[int, ...], int]:
        """What is cached, in the order in which it would be evicted."""
        return {prefix: self.ids[prefix] for prefix in sorted(self.ids, key=self.last_use.__getitem__)}

    def _prefixes(self, token_ids: Sequence[int]) -> list[tuple[int, ...]]:
        """Everything up to the end of each full block."""
        return [tuple(token_ids[:end]) for end in range(self.block_size, len(token_ids) + 1, self.block_size)]

    def _touch(self, prefix: tuple[int, ...]) -> None:
        """Note a use; of one time the longer prefix is the older."""
        self.last_use[prefix] = (self.time, -len(prefix))
        heapq.heappush(self.heap, (self.last_use[prefix], prefix))

    def match(self, token_ids: Sequence[int]) -> list[int]:
        self.time += 1
        block_ids = []
        for prefix in self._prefixes(token_ids[:-1]):
            if prefix not in self.ids:
                break
            block_ids.append(self.ids[prefix])
            self.allocator.share(self.ids[prefix])
            self._touch(prefix)
        return block_ids

    def insert(self, token_ids: Sequence[int], block_ids: Sequence[int]) -> None:
        self.time += 1
        for prefix, block_id in zip(self._prefixes(token_ids), block_ids, strict=False):
            if prefix not in self.ids:
                self.allocator.share(block_id)
                self.ids[prefix] = block_id
            self._touch(prefix)

    def evict(self, num_blocks: int) -> int:
        in_use, freed = [], 0
        while self.heap and freed < num_blocks:
            use, prefix = heapq.heappop(self.heap)
            if self.last_use.get(prefix) != use:
                continue  # used again since, or gone
            if self.allocator.ref_count(self.ids[prefix]) > 1:
                in_use.append((use, prefix))
                continue
            self.allocator.free(self.ids.pop(prefix))
            del self.last_use[prefix]
            freed += 1
        for item in in_use:
            heapq.heappush(self.heap, item)
        return freed
