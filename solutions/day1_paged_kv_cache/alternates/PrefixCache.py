"""Other right ways to a `PrefixCache`."""

from collections.abc import Iterator, Sequence
from itertools import count
from types import SimpleNamespace

from grader.mutants import alternate
from tinyllm.kv_cache.allocator import BlockAllocator
from tinyllm.kv_cache.prefix_cache import PrefixCache


@alternate
class RadixTree(PrefixCache):
    """A tree whose edges are the tokens of a block; a path from the root is a prefix. No hash is taken."""

    def __init__(self, allocator: BlockAllocator, block_size: int) -> None:
        super().__init__(allocator, block_size)
        self.clock = count()
        self.root: dict[tuple[int, ...], SimpleNamespace] = {}

    def _path(self, token_ids: Sequence[int]) -> list[tuple[int, ...]]:
        """The tokens of each full block."""
        size = self.block_size
        return [tuple(token_ids[end - size : end]) for end in range(size, len(token_ids) + 1, size)]

    def _held(self, children: dict[tuple[int, ...], SimpleNamespace]) -> Iterator[SimpleNamespace]:
        """Every node that holds a block, those below before those above."""
        for node in children.values():
            yield from self._held(node.children)
            if node.block_id is not None:
                yield node

    def match(self, token_ids: Sequence[int]) -> list[int]:
        now, children, block_ids = next(self.clock), self.root, []
        for tokens in self._path(token_ids[:-1]):
            node = children.get(tokens)
            if node is None or node.block_id is None:
                break
            self.allocator.share(node.block_id)
            block_ids.append(node.block_id)
            children, node.time = node.children, now
        return block_ids

    def insert(self, token_ids: Sequence[int], block_ids: Sequence[int]) -> None:
        now, children = next(self.clock), self.root
        for tokens, block_id in zip(self._path(token_ids), block_ids, strict=False):
            node = children.setdefault(tokens, SimpleNamespace(children={}, block_id=None))
            if node.block_id is None:
                self.allocator.share(block_id)
                node.block_id = block_id
            children, node.time = node.children, now

    def evict(self, num_blocks: int) -> int:
        held = sorted(self._held(self.root), key=lambda node: node.time)
        victims = [node for node in held if self.allocator.ref_count(node.block_id) == 1][:num_blocks]
        for node in victims:
            self.allocator.free(node.block_id)
            node.block_id = None  # the node stays: longer prefixes may hang on it
        return len(victims)
