"""Which tables share which blocks and what each sequence reads, followed on paper. No block ids are asserted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from grader.checks.support import count_of, is_int_list
from grader.framework import short, two_texts


@dataclass(eq=False)
class Block:
    """A block of the books: no id, only how many tables own it."""

    owners: int = 1


@dataclass
class SharingBooks:
    """Which tables share which blocks and what each sequence holds, followed on paper."""

    block_size: int
    num_blocks: int
    blocks: dict[str, list[Block]] = field(default_factory=dict)
    tokens: dict[str, list[str]] = field(default_factory=dict)

    def num_free(self) -> int:
        """Blocks that no table owns."""
        return self.num_blocks - len({id(block) for blocks in self.blocks.values() for block in blocks})

    def needs_copy(self, name: str) -> bool:
        """Whether the next token goes into a block that has another owner."""
        return len(self.tokens[name]) % self.block_size != 0 and self.blocks[name][-1].owners > 1

    def new_blocks(self, name: str, num_tokens: int) -> int:
        """Blocks that have to be added for more tokens, the copy not among them."""
        total = len(self.tokens[name]) + num_tokens
        return max(0, (total + self.block_size - 1) // self.block_size - len(self.blocks[name]))

    @property
    def tables(self) -> list[str]:
        """The tables that there are."""
        return list(self.blocks)

    def follow(self, step: list[Any]) -> int | None:
        """Write one step down; the number of blocks copied in it, or None where it cannot be done."""
        name, table, *arguments = step
        if name == "new":  # with so many tokens, and blocks where it starts with some
            self.blocks[table], self.tokens[table] = [Block() for _ in range(sum(arguments[1:]))], []
        if name == "fork":
            self.fork(table, arguments[0])
        elif name == "release":
            self.release(table)
        else:
            return self.append(table, arguments[0])
        return 0

    def fork(self, name: str, child: str) -> None:
        """The child owns all that the parent does."""
        for block in self.blocks[name]:
            block.owners += 1
        self.blocks[child], self.tokens[child] = list(self.blocks[name]), list(self.tokens[name])

    def append(self, name: str, num_tokens: int) -> int | None:
        """Add tokens; the number of blocks copied for them, or None where they do not fit."""
        copies = int(num_tokens > 0 and self.needs_copy(name))
        new_blocks = self.new_blocks(name, num_tokens)
        if copies + new_blocks > self.num_free():
            return None
        if copies:
            self.blocks[name][-1].owners -= 1
            self.blocks[name][-1] = Block()
        self.blocks[name] += [Block() for _ in range(new_blocks)]
        start = len(self.tokens[name])
        self.tokens[name] += [label(name, position) for position in range(start, start + num_tokens)]
        return copies

    def release(self, name: str) -> None:
        """Forget a table."""
        for block in self.blocks.pop(name):
            block.owners -= 1
        del self.tokens[name]

    def size_problem(self, tables: Any) -> str | None:
        """How the tables' tokens and blocks differ in number from the books."""
        for name, tokens in self.tokens.items():
            seen = tables[name]
            if seen["num_tokens"] != len(tokens):
                return f"table {name} must have {count_of(len(tokens), 'token')}, got {short(seen['num_tokens'])}"
            expected = count_of(len(self.blocks[name]), "block")
            if not is_int_list(seen["block_ids"]):
                return f"table {name} must have a list of {expected}, got {short(seen['block_ids'])}"
            if len(seen["block_ids"]) != len(self.blocks[name]):
                return f"table {name} must have {expected}, got {len(seen['block_ids'])}"
        return None

    def content_problem(self, tables: Any) -> str | None:
        """How what the sequences read differs from the books."""
        for name, tokens in self.tokens.items():
            content = tables[name]["content"]
            if content != tokens:
                wanted, came = two_texts(tokens, content)
                return f"sequence {name} must read {wanted}, got {came}"
        return None

    def sharing_problem(self, tables: Any, owners: Any) -> str | None:
        """How the owners of the blocks differ from the books."""
        pairs: dict[int, Block] = {}
        for name, blocks in self.blocks.items():
            for position, (block_id, block) in enumerate(zip(tables[name]["block_ids"], blocks, strict=True)):
                if block_id not in range(len(owners)):
                    return f"block {position} of table {name} is none of the pool"
                if owners[block_id] != block.owners:
                    expected = count_of(block.owners, "owner")
                    return f"block {position} of table {name} must have {expected}, got {owners[block_id]}"
                if pairs.setdefault(block_id, block) is not block:
                    return f"block {position} of table {name} is shared with a table that should have its own"
        if len(pairs) != len({id(block) for block in pairs.values()}):
            return "two tables that should share a block have one each"
        free = owners.count(0)
        expected = count_of(self.num_free(), "free block")
        return f"the pool must have {expected}, it has {free}" if free != self.num_free() else None


def label(name: str, position: int) -> str:
    """What stands for the K and V of a token: who wrote it, and where in its sequence."""
    return f"{name}{position}"


class Memory:
    """A pool in which each slot holds a label; stands for the K and V of a real one."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.slots: list[str] = [""] * (num_blocks * block_size)
        self.copies = 0

    def copy_block(self, source: int, target: int) -> None:
        """Copy all slots of a block; given to the answer."""
        size = self.block_size
        self.slots[target * size : (target + 1) * size] = self.slots[source * size : (source + 1) * size]
        self.copies += 1

    def write(self, name: str, start: int, slots: list[int]) -> None:
        """Label the slots of a sequence's tokens from position `start` on."""
        for position, slot in enumerate(slots, start):
            self.slots[slot] = label(name, position)

    def read(self, table: Any) -> list[str]:
        """What a sequence finds in its slots."""
        return [self.slots[slot] for slot in table.slots(0, table.num_tokens)]
