"""Mistakes that people make in `BlockAllocator`."""

from grader.mutants import mutant, unknown_bug, variant
from tinyllm.kv_cache.allocator import BlockAllocator, OutOfBlocksError


@mutant
class TakesSomeBeforeItFails(BlockAllocator):
    """When the pool is too small, your `allocate` has taken some blocks before it raises. The caller got nothing, so
    these blocks belong to nobody and never come back."""

    def allocate(self, num_blocks: int) -> list[int]:
        block_ids = []
        for _ in range(num_blocks):
            if not self.free_ids:
                raise OutOfBlocksError(f"{num_blocks} KV blocks wanted")
            block_id = self.free_ids.popleft()
            self.ref_counts[block_id] = 1
            block_ids.append(block_id)
        return block_ids


@variant(TakesSomeBeforeItFails)
class FindsOutAtTheEnd(BlockAllocator):
    """The same, with the error of an empty deque turned into the right one."""

    def allocate(self, num_blocks: int) -> list[int]:
        block_ids: list[int] = []
        try:
            while len(block_ids) < num_blocks:
                block_ids.append(self.free_ids.popleft())
                self.ref_counts[block_ids[-1]] += 1
        except IndexError:
            raise OutOfBlocksError("the pool is empty") from None
        return block_ids


@mutant
class RefusesTheLastBlock(BlockAllocator):
    """You refuse a request for exactly as many blocks as are free."""

    def allocate(self, num_blocks: int) -> list[int]:
        if num_blocks >= len(self.free_ids) and num_blocks > 0:
            raise OutOfBlocksError(f"{num_blocks} KV blocks wanted, {len(self.free_ids)} free")
        block_ids = [self.free_ids.popleft() for _ in range(num_blocks)]
        for block_id in block_ids:
            self.ref_counts[block_id] = 1
        return block_ids


@variant(RefusesTheLastBlock)
class KeepsOneBlockBack(BlockAllocator):
    """The same, as a reserve of one block."""

    def allocate(self, num_blocks: int) -> list[int]:
        available = self.num_free - 1
        if num_blocks and available < num_blocks:
            raise OutOfBlocksError(f"only {available} KV blocks to give")
        block_ids = [self.free_ids.pop() for _ in range(num_blocks)]
        self.ref_counts = [1 if i in block_ids else count for i, count in enumerate(self.ref_counts)]
        return block_ids


@mutant
class LeavesBlocksInThePool(BlockAllocator):
    """The blocks that you hand out stay in the list of free ones, so that the next caller gets them too."""

    def allocate(self, num_blocks: int) -> list[int]:
        if num_blocks > len(self.free_ids):
            raise OutOfBlocksError(f"{num_blocks} KV blocks wanted, {len(self.free_ids)} free")
        block_ids = list(self.free_ids)[:num_blocks]
        for block_id in block_ids:
            self.ref_counts[block_id] = 1
        return block_ids


@variant(LeavesBlocksInThePool)
class TurnsThePoolRound(BlockAllocator):
    """The same, taking from the front and putting at the back."""

    def allocate(self, num_blocks: int) -> list[int]:
        if num_blocks > self.num_free:
            raise OutOfBlocksError(f"{num_blocks} KV blocks wanted, {self.num_free} free")
        block_ids = []
        for _ in range(num_blocks):
            block_ids.append(self.free_ids[0])
            self.ref_counts[self.free_ids[0]] = 1
            self.free_ids.rotate(-1)
        return block_ids


@mutant
class ForgetsTheFirstOwner(BlockAllocator):
    """The blocks that you hand out have a reference count of 0: whoever asked for a block is its first owner."""

    def allocate(self, num_blocks: int) -> list[int]:
        if num_blocks > len(self.free_ids):
            raise OutOfBlocksError(f"{num_blocks} KV blocks wanted, {len(self.free_ids)} free")
        return [self.free_ids.popleft() for _ in range(num_blocks)]


@variant(ForgetsTheFirstOwner)
class CountsOnlySharers(BlockAllocator):
    """The same, with the count set to what it was for a free block."""

    def allocate(self, num_blocks: int) -> list[int]:
        if self.num_free < num_blocks:
            raise OutOfBlocksError(f"{num_blocks} KV blocks wanted, {self.num_free} free")
        block_ids = []
        while len(block_ids) < num_blocks:
            block_id = self.free_ids.popleft()
            self.ref_counts[block_id] = 0
            block_ids.append(block_id)
        return block_ids


@mutant
class FreesWhileShared(BlockAllocator):
    """You return a block to the pool although it has another owner, who goes on reading it while somebody else
    writes to it."""

    def free(self, block_id: int) -> None:
        if self.ref_counts[block_id] == 0:
            raise ValueError(f"block {block_id} is already free")
        self.ref_counts[block_id] -= 1
        self.free_ids.append(block_id)


@variant(FreesWhileShared)
class ReturnsFirstThenCounts(BlockAllocator):
    """The same: any owner's `free` puts the block at the front of the pool."""

    def free(self, block_id: int) -> None:
        if not self.ref_count(block_id):
            raise ValueError(f"block {block_id} is already free")
        self.free_ids.appendleft(block_id)
        self.ref_counts[block_id] = self.ref_counts[block_id] - 1


@mutant
class NeverReturnsABlock(BlockAllocator):
    """A block whose last owner has gone is not handed out again: its count is 0, but it is not in the pool."""

    def free(self, block_id: int) -> None:
        if self.ref_counts[block_id] == 0:
            raise ValueError(f"block {block_id} is already free")
        self.ref_counts[block_id] -= 1


@variant(NeverReturnsABlock)
class ComparesTheOldCount(BlockAllocator):
    """The same: it looks for a count of 0 before it has counted down."""

    def free(self, block_id: int) -> None:
        count = self.ref_counts[block_id]
        if count < 1:
            raise ValueError(f"block {block_id} is already free")
        if count == 0:
            self.free_ids.append(block_id)
        self.ref_counts[block_id] = count - 1


@mutant
class AcceptsADoubleFree(BlockAllocator):
    """You free a block that is free already without complaint. The second time hides a caller's mistake, and may put
    the block into the pool twice."""

    def free(self, block_id: int) -> None:
        self.ref_counts[block_id] -= 1
        if self.ref_counts[block_id] <= 0:
            self.free_ids.append(block_id)


@variant(AcceptsADoubleFree)
class IgnoresADoubleFree(BlockAllocator):
    """The same mistake with a gentler end: the second free does nothing, and says nothing."""

    def free(self, block_id: int) -> None:
        if self.ref_counts[block_id] == 1:
            self.free_ids.append(block_id)
        self.ref_counts[block_id] = max(0, self.ref_counts[block_id] - 1)


@mutant
class SharesAFreeBlock(BlockAllocator):
    """You let a free block be shared. It is still in the pool and will be handed out to somebody else as well."""

    def share(self, block_id: int) -> None:
        self.ref_counts[block_id] += 1


@variant(SharesAFreeBlock)
class ChecksForNegativeCounts(BlockAllocator):
    """The same, with a check that never refuses."""

    def share(self, block_id: int) -> None:
        owners = self.ref_count(block_id)
        if owners < 0:
            raise ValueError(f"block {block_id} is free and cannot be shared")
        self.ref_counts[block_id] = owners + 1


@unknown_bug
class CountsASharerTwice(BlockAllocator):
    """Adds two owners for one."""

    def share(self, block_id: int) -> None:
        if self.ref_counts[block_id] == 0:
            raise ValueError(f"block {block_id} is free and cannot be shared")
        self.ref_counts[block_id] += 2


@unknown_bug
class FreesBeforeItRefuses(BlockAllocator):
    """Refuses a double free, but counts below zero first."""

    def free(self, block_id: int) -> None:
        self.ref_counts[block_id] -= 1
        if self.ref_counts[block_id] < 0:
            raise ValueError(f"block {block_id} is already free")
        if self.ref_counts[block_id] == 0:
            self.free_ids.append(block_id)
