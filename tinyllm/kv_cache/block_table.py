"""From a token's position in its sequence to its slot in the pool."""

from __future__ import annotations

from collections.abc import Sequence

from tinyllm.kv_cache.allocator import BlockAllocator


class BlockTable:
    """The KV blocks of one sequence, in order (PagedAttention, arXiv 2309.06180, section 4.3).

    Position p lives in block `block_ids[p // P]` at offset `p % P`, where P is the block size;
    its slot in the pool is `block_ids[p // P] * P + p % P`.

    Attributes:
        block_ids: block of each run of P positions.
        num_tokens: positions that are in use; the last block may be partly empty.
    """

    def __init__(
        self, allocator: BlockAllocator, block_size: int, block_ids: Sequence[int] = (), num_tokens: int = 0
    ) -> None:
        """Start empty, or with blocks that the caller already owns (a prefix hit, a fork)."""
        self.allocator = allocator
        self.block_size = block_size
        self.block_ids = list(block_ids)
        self.num_tokens = num_tokens

    def num_new_blocks(self, num_tokens: int) -> int:
        """Blocks that must be allocated before `num_tokens` more tokens fit: never less than 0, surplus blocks stay."""
        needed = -(-(self.num_tokens + num_tokens) // self.block_size)
        return max(0, needed - len(self.block_ids))

    def append(self, num_tokens: int) -> list[int]:
        """Make room for `num_tokens` more tokens and return their slots.

        Raises:
            OutOfBlocksError: the pool has too few free blocks; the table has not changed.
        """
        self.block_ids += self.allocator.allocate(self.num_new_blocks(num_tokens))
        start = self.num_tokens
        self.num_tokens += num_tokens
        return self.slots(start, self.num_tokens)

    def slots(self, start: int, stop: int) -> list[int]:
        """The slots of positions `start` to `stop - 1`."""
        size = self.block_size
        return [self.block_ids[p // size] * size + p % size for p in range(start, stop)]

    def release(self) -> None:
        """Give up every block, last one first, and be empty again."""
        for block_id in reversed(self.block_ids):
            self.allocator.free(block_id)
        self.block_ids = []
        self.num_tokens = 0
