"""Mistakes that people make in `BlockTable`."""

from grader.mutants import mutant, unknown_bug, variant
from tinyllm.kv_cache.allocator import OutOfBlocksError
from tinyllm.kv_cache.block_table import BlockTable


@mutant
class SlotsIgnoreTheTable(BlockTable):
    """Your slots are the positions themselves: they do not depend on which blocks the table has. In the pool, a
    sequence's blocks lie anywhere."""

    def slots(self, start: int, stop: int) -> list[int]:
        return list(range(start, stop))


@variant(SlotsIgnoreTheTable)
class CountsBlocksFromZero(BlockTable):
    """The same, through the block's place in the table in place of its id."""

    def slots(self, start: int, stop: int) -> list[int]:
        size = self.block_size
        return [(p // size) * size + p % size for p in range(start, stop)]


@mutant
class ForgetsHowLargeABlockIs(BlockTable):
    """You add the offset to the block's id. A block's first slot is not its id: how many slots come before it?"""

    def slots(self, start: int, stop: int) -> list[int]:
        return [self.block_ids[p // self.block_size] + p % self.block_size for p in range(start, stop)]


@variant(ForgetsHowLargeABlockIs)
class WalksFromTheBlockId(BlockTable):
    """The same, block by block."""

    def slots(self, start: int, stop: int) -> list[int]:
        slots: list[int] = []
        for block_id in self.block_ids:
            slots += range(block_id, block_id + self.block_size)
        return slots[start:stop]


@mutant
class RoundsBlocksDown(BlockTable):
    """You round the number of blocks down. Tokens that fill only part of a block need that block too."""

    def num_new_blocks(self, num_tokens: int) -> int:
        return max(0, (self.num_tokens + num_tokens) // self.block_size - len(self.block_ids))

    def append(self, num_tokens: int) -> list[int]:
        self.block_ids += self.allocator.allocate(self.num_new_blocks(num_tokens))
        start = self.num_tokens
        self.num_tokens += num_tokens
        return self.slots(start, self.num_tokens)


@variant(RoundsBlocksDown)
class AllocatesWhenABlockIsFull(BlockTable):
    """The same, counting the full blocks before and after."""

    def num_new_blocks(self, num_tokens: int) -> int:
        full = 0
        while (full + 1) * self.block_size <= self.num_tokens + num_tokens:
            full += 1
        return full - len(self.block_ids) if full > len(self.block_ids) else 0

    def append(self, num_tokens: int) -> list[int]:
        self.block_ids.extend(self.allocator.allocate(self.num_new_blocks(num_tokens)))
        self.num_tokens += num_tokens
        return self.slots(self.num_tokens - num_tokens, self.num_tokens)


@mutant
class IgnoresRoomInTheLastBlock(BlockTable):
    """You take new blocks for all new tokens, although some of them fit into the last block or into blocks that the
    table owns already."""

    def num_new_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def append(self, num_tokens: int) -> list[int]:
        self.block_ids += self.allocator.allocate(-(-num_tokens // self.block_size))
        start = self.num_tokens
        self.num_tokens += num_tokens
        return self.slots(start, self.num_tokens)


@variant(IgnoresRoomInTheLastBlock)
class StartsABlockForEachAppend(BlockTable):
    """The same, one block at a time."""

    def num_new_blocks(self, num_tokens: int) -> int:
        return len(range(0, num_tokens, self.block_size))

    def append(self, num_tokens: int) -> list[int]:
        fresh = self.allocator.allocate(len(range(0, num_tokens, self.block_size)))
        self.block_ids = [*self.block_ids, *fresh]
        self.num_tokens += num_tokens
        return self.slots(self.num_tokens - num_tokens, self.num_tokens)


@mutant
class OneBlockTooManyAtABorder(BlockTable):
    """When the tokens fill their blocks exactly, you take one more block: look at your rounding up."""

    def num_new_blocks(self, num_tokens: int) -> int:
        return max(0, (self.num_tokens + num_tokens) // self.block_size + 1 - len(self.block_ids))

    def append(self, num_tokens: int) -> list[int]:
        self.block_ids += self.allocator.allocate(self.num_new_blocks(num_tokens))
        start = self.num_tokens
        self.num_tokens += num_tokens
        return self.slots(start, self.num_tokens)


@variant(OneBlockTooManyAtABorder)
class KeepsRoomForTheNextToken(BlockTable):
    """The same, as room for a token that has not come yet."""

    def num_new_blocks(self, num_tokens: int) -> int:
        blocks = len(self.block_ids)
        while blocks * self.block_size <= self.num_tokens + num_tokens:
            blocks += 1
        return blocks - len(self.block_ids)

    def append(self, num_tokens: int) -> list[int]:
        fresh = self.allocator.allocate(self.num_new_blocks(num_tokens))
        self.block_ids.extend(fresh)
        self.num_tokens += num_tokens
        return self.slots(self.num_tokens - num_tokens, self.num_tokens)


@mutant
class ReturnsTheFirstSlots(BlockTable):
    """`append` returns the slots of the first tokens of the sequence and not of those just added."""

    def append(self, num_tokens: int) -> list[int]:
        self.block_ids += self.allocator.allocate(self.num_new_blocks(num_tokens))
        self.num_tokens += num_tokens
        return self.slots(0, num_tokens)


@variant(ReturnsTheFirstSlots)
class CutsTheWrongEnd(BlockTable):
    """The same, as the wrong end of all slots."""

    def append(self, num_tokens: int) -> list[int]:
        self.block_ids.extend(self.allocator.allocate(self.num_new_blocks(num_tokens)))
        self.num_tokens = self.num_tokens + num_tokens
        return self.slots(0, self.num_tokens)[:num_tokens]


@mutant
class CountsBeforeItHasBlocks(BlockTable):
    """When the pool is too small, your table has counted the tokens before the allocation fails: it now says that it
    holds tokens for which it has no room."""

    def append(self, num_tokens: int) -> list[int]:
        start = self.num_tokens
        missing = self.num_new_blocks(num_tokens)
        self.num_tokens += num_tokens
        self.block_ids += self.allocator.allocate(missing)
        return self.slots(start, self.num_tokens)


@variant(CountsBeforeItHasBlocks)
class GrowsThenLooks(BlockTable):
    """The same, asking for blocks only once the tokens are counted."""

    def append(self, num_tokens: int) -> list[int]:
        self.num_tokens += num_tokens
        wanted = self.num_new_blocks(0)
        if wanted > self.allocator.num_free:
            raise OutOfBlocksError(f"{wanted} KV blocks wanted")
        self.block_ids.extend(self.allocator.allocate(wanted))
        return self.slots(self.num_tokens - num_tokens, self.num_tokens)


@mutant
class TakesBlocksOneByOne(BlockTable):
    """When the pool is too small, your table has taken some blocks before the allocation fails, and keeps them."""

    def append(self, num_tokens: int) -> list[int]:
        for _ in range(self.num_new_blocks(num_tokens)):
            self.block_ids += self.allocator.allocate(1)
        start = self.num_tokens
        self.num_tokens += num_tokens
        return self.slots(start, self.num_tokens)


@variant(TakesBlocksOneByOne)
class TakesWhatThereIs(BlockTable):
    """The same: it takes all that are free and then finds that they do not suffice."""

    def append(self, num_tokens: int) -> list[int]:
        missing = self.num_new_blocks(num_tokens)
        self.block_ids.extend(self.allocator.allocate(min(missing, self.allocator.num_free)))
        if self.num_new_blocks(num_tokens):
            raise OutOfBlocksError(f"{missing} KV blocks wanted")
        self.num_tokens += num_tokens
        return self.slots(self.num_tokens - num_tokens, self.num_tokens)


@unknown_bug
class OffsetsCountFromTheStart(BlockTable):
    """Counts a slot's offset from the start of the piece that is asked for and not from the start of its block."""

    def slots(self, start: int, stop: int) -> list[int]:
        size = self.block_size
        return [self.block_ids[p // size] * size + (p - start) % size for p in range(start, stop)]
