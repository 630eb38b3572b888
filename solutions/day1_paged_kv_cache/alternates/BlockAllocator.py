"""Other right ways to a `BlockAllocator`."""

import heapq
from collections import Counter

from grader.mutants import alternate
from tinyllm.kv_cache.allocator import BlockAllocator, OutOfBlocksError


@alternate
class ScansTheCounts(BlockAllocator):
    """No list of free blocks at all: a block is free when its count is 0, and the lowest are handed out first."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.ref_counts = [0] * num_blocks

    @property
    def num_free(self) -> int:
        """Blocks that can be allocated now."""
        return self.ref_counts.count(0)

    def allocate(self, num_blocks: int) -> list[int]:
        block_ids = [block_id for block_id, count in enumerate(self.ref_counts) if count == 0][:num_blocks]
        if len(block_ids) < num_blocks:
            raise OutOfBlocksError(f"{num_blocks} KV blocks wanted, {len(block_ids)} free")
        for block_id in block_ids:
            self.ref_counts[block_id] += 1
        return block_ids

    def share(self, block_id: int) -> None:
        if not self.ref_counts[block_id]:
            raise ValueError(f"block {block_id} is free")
        self.ref_counts[block_id] += 1

    def free(self, block_id: int) -> None:
        if not self.ref_counts[block_id]:
            raise ValueError(f"block {block_id} is free")
        self.ref_counts[block_id] -= 1


@alternate
class LowestFirst(BlockAllocator):
    """A heap of free ids, and a counter that holds only blocks in use."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.heap = list(range(num_blocks))
        self.owners: Counter[int] = Counter()

    @property
    def num_free(self) -> int:
        """Blocks that can be allocated now."""
        return self.num_blocks - len(self.owners)

    def ref_count(self, block_id: int) -> int:
        """How many owners the block has."""
        return self.owners[block_id]

    def allocate(self, num_blocks: int) -> list[int]:
        if self.num_free < num_blocks:
            raise OutOfBlocksError(f"{num_blocks} KV blocks wanted, {self.num_free} free")
        block_ids = [heapq.heappop(self.heap) for _ in range(num_blocks)]
        self.owners.update(block_ids)
        return block_ids

    def share(self, block_id: int) -> None:
        if block_id not in self.owners:
            raise ValueError(f"block {block_id} is free")
        self.owners[block_id] += 1

    def free(self, block_id: int) -> None:
        if block_id not in self.owners:
            raise ValueError(f"block {block_id} is free")
        self.owners[block_id] -= 1
        if not self.owners[block_id]:
            del self.owners[block_id]
            heapq.heappush(self.heap, block_id)


@alternate
class LinkedFreeList(BlockAllocator):
    """The free blocks as a linked list inside the table of counts: a free block holds minus the next one, less one."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.entries = [-(block_id + 2) for block_id in range(num_blocks)]  # the last one points past the end
        self.head, self.free_length = 0, num_blocks

    @property
    def num_free(self) -> int:
        """Blocks that can be allocated now."""
        return self.free_length

    def ref_count(self, block_id: int) -> int:
        """How many owners the block has."""
        return max(0, self.entries[block_id])

    def allocate(self, num_blocks: int) -> list[int]:
        if num_blocks > self.free_length:
            raise OutOfBlocksError(f"{num_blocks} KV blocks wanted, {self.free_length} free")
        block_ids = []
        for _ in range(num_blocks):
            block_id = self.head
            self.head = -self.entries[block_id] - 1
            self.entries[block_id] = 1
            block_ids.append(block_id)
        self.free_length -= num_blocks
        return block_ids

    def share(self, block_id: int) -> None:
        if self.entries[block_id] < 0:
            raise ValueError(f"block {block_id} is free")
        self.entries[block_id] += 1

    def free(self, block_id: int) -> None:
        if self.entries[block_id] < 0:
            raise ValueError(f"block {block_id} is free")
        self.entries[block_id] -= 1
        if self.entries[block_id] == 0:
            self.entries[block_id] = -(self.head + 1)
            self.head = block_id
            self.free_length += 1
