"""Sequences that begin alike share blocks until one of them writes."""

from __future__ import annotations

from collections.abc import Callable

from tinyllm.kv_cache.allocator import BlockAllocator
from tinyllm.kv_cache.block_table import BlockTable


class CopyOnWrite:
    """Forks block tables, and copies a shared block before the first write to it.

    Only the last block of a table is ever written, and only while it is partly filled: full blocks
    stay shared for good (PagedAttention, arXiv 2309.06180, section 4.4, figure 8).
    """

    def __init__(self, allocator: BlockAllocator, copy_block: Callable[[int, int], None]) -> None:
        """`copy_block(source, target)` copies the K and V of a whole block."""
        self.allocator = allocator
        self.copy_block = copy_block

    def fork(self, table: BlockTable) -> BlockTable:
        """A new table of the same tokens that shares every block with `table`. Copies no K or V."""
        for block_id in table.block_ids:
            self.allocator.share(block_id)
        return type(table)(self.allocator, table.block_size, table.block_ids, table.num_tokens)

    def needs_copy(self, table: BlockTable) -> bool:
        """Whether the next append would write into a block that another owner can see."""
        if table.num_tokens % table.block_size == 0:
            return False  # the next token starts a new block
        return self.allocator.ref_count(table.block_ids[-1]) > 1

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        """Append to `table` as `BlockTable.append` does, first giving it a last block of its own if needed.

        Raises:
            OutOfBlocksError: the pool cannot hold the copy and the new blocks; nothing has changed.
        """
        if num_tokens == 0 or not self.needs_copy(table):
            return table.append(num_tokens)
        new_blocks = self.allocator.allocate(1 + table.num_new_blocks(num_tokens))
        shared, own = table.block_ids[-1], new_blocks[0]
        self.copy_block(shared, own)
        self.allocator.free(shared)
        table.block_ids[-1:] = new_blocks
        return table.append(num_tokens)
