"""Other right ways to `CopyOnWrite`."""

from grader.mutants import alternate
from tinyllm.kv_cache.allocator import OutOfBlocksError
from tinyllm.kv_cache.block_table import BlockTable
from tinyllm.kv_cache.copy_on_write import CopyOnWrite


@alternate
class LooksFirstThenActs(CopyOnWrite):
    """Asks the pool whether all will fit before it touches anything; then takes the copy and the rest apart."""

    def fork(self, table: BlockTable) -> BlockTable:
        child = type(table)(self.allocator, table.block_size)
        child.num_tokens = table.num_tokens
        for block_id in table.block_ids:
            self.allocator.share(block_id)
            child.block_ids.append(block_id)
        return child

    def needs_copy(self, table: BlockTable) -> bool:
        if table.num_tokens % table.block_size:
            return self.allocator.ref_count(table.block_ids[-1]) > 1
        return False

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        copy = self.needs_copy(table) if num_tokens else False
        if copy + table.num_new_blocks(num_tokens) > self.allocator.num_free:
            raise OutOfBlocksError(f"no room for {num_tokens} more tokens")
        if copy:
            (own,) = self.allocator.allocate(1)
            self.copy_block(table.block_ids[-1], own)
            self.allocator.free(table.block_ids[-1])
            table.block_ids[-1] = own
        return table.append(num_tokens)
