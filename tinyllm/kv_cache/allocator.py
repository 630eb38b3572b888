"""Who owns which KV block: free blocks and reference counts. No tensors live here."""

from __future__ import annotations

from collections import deque


class OutOfBlocksError(MemoryError):
    """The pool has too few free blocks. Nothing has changed; free or evict some and try again."""


class BlockAllocator:
    """A pool of `num_blocks` KV blocks with reference counts (PagedAttention, arXiv 2309.06180, section 4.2).

    A block is free (count 0) or has one reference for each owner: a block table or the prefix cache.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.free_ids = deque(range(num_blocks))
        self.ref_counts = [0] * num_blocks

    @property
    def num_free(self) -> int:
        """Blocks that can be allocated now."""
        return len(self.free_ids)

    def ref_count(self, block_id: int) -> int:
        """How many owners the block has; 0 means that it is free."""
        return self.ref_counts[block_id]

    def allocate(self, num_blocks: int) -> list[int]:
        """Take `num_blocks` free blocks, each with one reference. All or none.

        Raises:
            OutOfBlocksError: fewer are free; nothing has changed.
        """
        if num_blocks > len(self.free_ids):
            raise OutOfBlocksError(f"{num_blocks} KV blocks wanted, {len(self.free_ids)} free")
        block_ids = [self.free_ids.popleft() for _ in range(num_blocks)]
        for block_id in block_ids:
            self.ref_counts[block_id] = 1
        return block_ids

    def share(self, block_id: int) -> None:
        """Add one owner to a block that is in use.

        Raises:
            ValueError: the block is free; nobody could have handed it over.
        """
        if self.ref_counts[block_id] == 0:
            raise ValueError(f"block {block_id} is free and cannot be shared")
        self.ref_counts[block_id] += 1

    def free(self, block_id: int) -> None:
        """Drop one owner; the block returns to the pool with the last one.

        Raises:
            ValueError: the block is already free (a double free); nothing has changed.
        """
        if self.ref_counts[block_id] == 0:
            raise ValueError(f"block {block_id} is already free")
        self.ref_counts[block_id] -= 1
        if self.ref_counts[block_id] == 0:
            self.free_ids.append(block_id)
