"""Mistakes that people make in `CopyOnWrite`."""

from grader.mutants import mutant, unknown_bug, variant
from tinyllm.kv_cache.block_table import BlockTable
from tinyllm.kv_cache.copy_on_write import CopyOnWrite


@mutant
class ForkIsNoOwner(CopyOnWrite):
    """Your fork uses its parent's blocks without becoming an owner of them. When the parent ends, they are freed under
    the child's feet."""

    def fork(self, table: BlockTable) -> BlockTable:
        return type(table)(self.allocator, table.block_size, table.block_ids, table.num_tokens)


@variant(ForkIsNoOwner)
class CopiesTheTableOnly(CopyOnWrite):
    """The same, filling in an empty table."""

    def fork(self, table: BlockTable) -> BlockTable:
        child = BlockTable(self.allocator, table.block_size)
        child.block_ids = table.block_ids.copy()
        child.num_tokens = table.num_tokens
        return child


@mutant
class ForkSharesTheList(CopyOnWrite):
    """Parent and child hold one and the same list of block ids: what one appends, the other has too. They share
    blocks, but each needs a list of its own."""

    def fork(self, table: BlockTable) -> BlockTable:
        for block_id in table.block_ids:
            self.allocator.share(block_id)
        child = type(table)(self.allocator, table.block_size, (), table.num_tokens)
        child.block_ids = table.block_ids
        return child


@variant(ForkSharesTheList)
class ForkIsAShallowCopy(CopyOnWrite):
    """The same, with all attributes taken over."""

    def fork(self, table: BlockTable) -> BlockTable:
        child = object.__new__(type(table))
        vars(child).update(vars(table))
        for block_id in child.block_ids:
            self.allocator.share(block_id)
        return child


@mutant
class NeverCopies(CopyOnWrite):
    """You write into a block that another sequence shares. It will read your token in place of its own."""

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        return table.append(num_tokens)


@variant(NeverCopies)
class AppendsToTheTable(CopyOnWrite):
    """The same, with the blocks taken here."""

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        table.block_ids += self.allocator.allocate(table.num_new_blocks(num_tokens))
        start = table.num_tokens
        table.num_tokens += num_tokens
        return table.slots(start, table.num_tokens)


@mutant
class ForgetsWhatIsInTheBlock(CopyOnWrite):
    """You give the writer a block of its own, but what the shared block holds is not copied into it: the tokens before
    the new one are lost."""

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        if num_tokens == 0 or not self.needs_copy(table):
            return table.append(num_tokens)
        new_blocks = self.allocator.allocate(1 + table.num_new_blocks(num_tokens))
        self.allocator.free(table.block_ids[-1])
        table.block_ids[-1:] = new_blocks
        return table.append(num_tokens)


@variant(ForgetsWhatIsInTheBlock)
class CopiesABlockToItself(CopyOnWrite):
    """The same: it copies after the new block has taken the old one's place."""

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        if num_tokens > 0 and self.needs_copy(table):
            fresh = self.allocator.allocate(1 + table.num_new_blocks(num_tokens))
            old = table.block_ids.pop()
            table.block_ids.extend(fresh)
            self.copy_block(fresh[0], fresh[0])
            self.allocator.free(old)
        return table.append(num_tokens)


@mutant
class KeepsTheOldBlock(CopyOnWrite):
    """After the copy the writer still counts as an owner of the shared block. That block will never be free again."""

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        if num_tokens == 0 or not self.needs_copy(table):
            return table.append(num_tokens)
        new_blocks = self.allocator.allocate(1 + table.num_new_blocks(num_tokens))
        self.copy_block(table.block_ids[-1], new_blocks[0])
        table.block_ids[-1:] = new_blocks
        return table.append(num_tokens)


@variant(KeepsTheOldBlock)
class SwapsTheIdOnly(CopyOnWrite):
    """The same, in another order."""

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        if num_tokens and self.needs_copy(table):
            own, *more = self.allocator.allocate(1 + table.num_new_blocks(num_tokens))
            shared = table.block_ids.pop()
            table.block_ids = [*table.block_ids, own, *more]
            self.copy_block(shared, own)
        return table.append(num_tokens)


@mutant
class CopiesAtABorder(CopyOnWrite):
    """You copy a shared last block that is full. The next token starts a new block, so nobody writes to that one."""

    def needs_copy(self, table: BlockTable) -> bool:
        return bool(table.block_ids) and self.allocator.ref_count(table.block_ids[-1]) > 1

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        if num_tokens == 0 or not self.needs_copy(table):
            return table.append(num_tokens)
        new_blocks = self.allocator.allocate(1 + table.num_new_blocks(num_tokens))
        self.copy_block(table.block_ids[-1], new_blocks[0])
        self.allocator.free(table.block_ids[-1])
        table.block_ids[-1:] = new_blocks
        return table.append(num_tokens)


@variant(CopiesAtABorder)
class CopiesWhateverIsShared(CopyOnWrite):
    """The same, looking at all owners of the last block."""

    def needs_copy(self, table: BlockTable) -> bool:
        return any(self.allocator.ref_count(block_id) != 1 for block_id in table.block_ids[-1:])

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        if num_tokens > 0 and self.needs_copy(table):
            fresh = self.allocator.allocate(table.num_new_blocks(num_tokens) + 1)
            shared = table.block_ids.pop()
            self.copy_block(shared, fresh[0])
            self.allocator.free(shared)
            table.block_ids.extend(fresh)
        return table.append(num_tokens)


@mutant
class CopiesWhatNobodyShares(CopyOnWrite):
    """You copy the last block although the table is its only owner: that costs a block and a copy for nothing."""

    def needs_copy(self, table: BlockTable) -> bool:
        return table.num_tokens % table.block_size != 0

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        if num_tokens == 0 or not self.needs_copy(table):
            return table.append(num_tokens)
        new_blocks = self.allocator.allocate(1 + table.num_new_blocks(num_tokens))
        self.copy_block(table.block_ids[-1], new_blocks[0])
        self.allocator.free(table.block_ids[-1])
        table.block_ids[-1:] = new_blocks
        return table.append(num_tokens)


@variant(CopiesWhatNobodyShares)
class CountsOneOwnerAsShared(CopyOnWrite):
    """The same, by an owner too few."""

    def needs_copy(self, table: BlockTable) -> bool:
        return table.num_tokens % table.block_size > 0 and self.allocator.ref_count(table.block_ids[-1]) >= 1

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        if num_tokens > 0 and self.needs_copy(table):
            fresh = self.allocator.allocate(table.num_new_blocks(num_tokens) + 1)
            shared = table.block_ids.pop()
            self.copy_block(shared, fresh[0])
            self.allocator.free(shared)
            table.block_ids.extend(fresh)
        return table.append(num_tokens)


@mutant
class FailsHalfWay(CopyOnWrite):
    """When the pool has room for the copy but not for the new blocks, you have replaced the shared block before the
    append fails. Nothing may change then."""

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        if num_tokens > 0 and self.needs_copy(table):
            own = self.allocator.allocate(1)[0]
            shared = table.block_ids[-1]
            self.copy_block(shared, own)
            self.allocator.free(shared)
            table.block_ids[-1] = own
        return table.append(num_tokens)


@variant(FailsHalfWay)
class OwnsFirstThenAppends(CopyOnWrite):
    """The same, letting go of the shared block first."""

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        if num_tokens and self.needs_copy(table):
            fresh = self.allocator.allocate(1)
            old = table.block_ids.pop()
            table.block_ids += fresh
            self.allocator.free(old)
            self.copy_block(old, table.block_ids[-1])
        return table.append(num_tokens)


@unknown_bug
class CopiesBackwards(CopyOnWrite):
    """Copies the new, empty block over the shared one."""

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        if num_tokens == 0 or not self.needs_copy(table):
            return table.append(num_tokens)
        new_blocks = self.allocator.allocate(1 + table.num_new_blocks(num_tokens))
        self.copy_block(new_blocks[0], table.block_ids[-1])
        self.allocator.free(table.block_ids[-1])
        table.block_ids[-1:] = new_blocks
        return table.append(num_tokens)
