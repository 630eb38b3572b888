"""Other right ways to a `BlockAllocator`."""

import heapq
from collections import Counter

from grader.mutants import alternate
from tinyllm.kv_cache.allocator import BlockAllocator, OutOfBlocksError


@alternate
class ScansTheCounts(BlockAllocator):
    """No list of free blocks at all: a block is free when its count is 0, and the lowest are handed out first."""

    def __init__(self, num_blocks: int) -> None:
        self.ref_counts = [0] * num_blocks

    @property
    def num_free(self) -> int:
        return self.ref_counts.count(0)

    def allocate(self, num_blocks: int) -> list[int]:
        block_ids = [block_id for block_id, count in enumerate(self.ref_counts) if count == 0][:num_blocks]
        if len(block_ids) < num_blocks:
            raise OutOfBlocksError(f"{num_blocks} KV blocks wanted, {len(block_ids)} free")
        for block_id in block_ids:
            self.ref_counts[block_id] += 1
        return block_ids

    def free(self, block_id: int) -> None:
        if not self.ref_counts[block_id]:
            raise ValueError(f"block {block_id} is free")
        self.ref_counts[block_id] -= 1


@alternate
class LowestFirst(BlockAllocator):
    """A heap of free ids, and a counter that holds only blocks in use."""

    def __init__(self, num_blocks: int) -> None:
        self.heap = list(range(num_blocks))
        self.owners: Counter[int] = Counter()

    @property
    def num_free(self) -> int:
        return len(self.heap)

    def ref_count(self, block_id: int) -> int:
        return self.owners[block_id]

    def allocate(self, num_blocks: int) -> list[int]:
        if len(self.heap) < num_blocks:
            raise OutOfBlocksError(f"{num_blocks} KV blocks wanted, {len(self.heap)} free")
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
