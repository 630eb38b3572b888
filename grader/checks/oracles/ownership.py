"""Who owns which block, written down beside an allocator. Which block is handed out is the allocator's choice."""

from __future__ import annotations

from typing import Any

from grader.checks.support import count_of, is_int_list, what_happened
from grader.framework import short


class OwnershipBooks:
    """Who owns what, written down operation by operation from the blocks that the answer itself chose."""

    def __init__(self, num_blocks: int) -> None:
        self.owners = dict.fromkeys(range(num_blocks), 0)
        self.handed_out: list[int] = []

    @property
    def num_free(self) -> int:
        """Blocks without an owner."""
        return sum(count == 0 for count in self.owners.values())

    def allocate(self, wanted: int, outcome: dict[str, Any]) -> str | None:
        """Hold one `allocate` against the books, and write it down."""
        call = f"with {count_of(self.num_free, 'block')} free it"
        if wanted > self.num_free:
            if "OutOfBlocksError" in outcome.get("kinds", []):
                return None
            return f"{call} must raise OutOfBlocksError, but raised {outcome.get('raised', 'nothing')}"
        block_ids = outcome.get("value")
        if not is_int_list(block_ids):
            return f"{call} must return a list of {count_of(wanted, 'block id')}, but {what_happened(outcome)}"
        if len(block_ids) != wanted:
            return f"{call} must return {count_of(wanted, 'block')}, got {len(block_ids)}"
        if len(set(block_ids)) != wanted or any(self.owners.get(block_id) != 0 for block_id in block_ids):
            return f"{call} must return different free blocks of the pool; one of them is not"
        self.owners.update(dict.fromkeys(block_ids, 1))
        self.handed_out += block_ids
        return None

    def change(self, name: str, index: int, outcome: dict[str, Any]) -> str | None:
        """Hold one `share` or `free` against the books, and write it down."""
        block_id = self.handed_out[index]
        count = self.owners[block_id]
        call = f"on a block with {count_of(count, 'owner')} it"
        if count == 0:
            if "ValueError" in outcome.get("kinds", []):
                return None
            return f"{call} must raise ValueError, but {what_happened(outcome)}"
        if "raised" in outcome:
            return f"{call} must work, but {what_happened(outcome)}"
        self.owners[block_id] += 1 if name == "share" else -1
        return None

    def free_problem(self, num_free: Any) -> str | None:
        """How the number of free blocks differs from the books."""
        if num_free != self.num_free:
            return f"num_free must be {self.num_free}, got {short(num_free)}"
        return None

    def owners_problem(self, counts: Any) -> str | None:
        """How the reference counts differ from the books."""
        if not is_int_list(counts) or len(counts) != len(self.owners):
            return "ref_count must be an integer for every block of the pool"
        for block_id in self.handed_out:
            if counts[block_id] != self.owners[block_id]:
                expected = count_of(self.owners[block_id], "owner")
                return f"a block must have {expected}, got {counts[block_id]}"
        if any(counts[block_id] != count for block_id, count in self.owners.items()):
            return "a block that was never handed out has an owner"
        return None
