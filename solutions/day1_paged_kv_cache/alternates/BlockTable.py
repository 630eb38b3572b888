"""Other right ways to a `BlockTable`."""

from itertools import chain

from grader.mutants import alternate
from tinyllm.kv_cache.allocator import OutOfBlocksError
from tinyllm.kv_cache.block_table import BlockTable


@alternate
class WalksBlockByBlock(BlockTable):
    """Slots as one range a block, cut to the piece that is asked for."""

    def slots(self, start: int, stop: int) -> list[int]:
        size, ranges = self.block_size, []
        for index, block_id in enumerate(self.block_ids):
            first, last = max(start, index * size), min(stop, (index + 1) * size)
            shift = (block_id - index) * size
            ranges.append(range(first + shift, last + shift))
        return list(chain.from_iterable(ranges))


@alternate
class TokenByTokenWithRollback(BlockTable):
    """Grows one token at a time, and gives everything back when the pool runs out half-way."""

    def append(self, num_tokens: int) -> list[int]:
        slots, taken = [], 0
        for position in range(self.num_tokens, self.num_tokens + num_tokens):
            index, offset = divmod(position, self.block_size)
            if index == len(self.block_ids):
                try:
                    self.block_ids.extend(self.allocator.allocate(1))
                except OutOfBlocksError:
                    while taken:
                        self.allocator.free(self.block_ids.pop())
                        taken -= 1
                    raise
                taken += 1
            slots.append(self.block_ids[index] * self.block_size + offset)
        self.num_tokens += num_tokens
        return slots
