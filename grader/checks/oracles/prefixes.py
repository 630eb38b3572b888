"""What a prefix cache holds and who owns it, on paper: a plain list of whole prefixes, and no hash."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from grader.checks.support import count_of
from grader.framework import short


@dataclass
class PrefixBooks:
    """What is cached and who owns it, on paper.

    Attributes:
        cached: [prefix up to the end of the block, block id], least recently used first.
        held: the blocks that each request owns.
        names: what to call a block: its place and the request it was computed for.
    """

    block_size: int
    num_blocks: int
    cached: list[tuple[tuple[int, ...], int]] = field(default_factory=list)
    held: dict[str, list[int]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    def owners(self, block_id: int) -> int:
        """Requests that own a block, and the cache."""
        in_cache = sum(cached_id == block_id for _, cached_id in self.cached)
        return in_cache + sum(held.count(block_id) for held in self.held.values())

    def prefixes(self, tokens: list[int]) -> list[tuple[int, ...]]:
        """Everything up to the end of each full block."""
        return [tuple(tokens[:end]) for end in range(1, len(tokens) + 1) if end % self.block_size == 0]

    def touch(self, prefix: tuple[int, ...], block_id: int) -> None:
        """Put a prefix behind all others; one that is known keeps its block."""
        known = [entry for entry in self.cached if entry[0] == prefix]
        self.cached = [entry for entry in self.cached if entry[0] != prefix] + (known or [(prefix, block_id)])

    def match(self, tokens: list[int]) -> list[int]:
        """The blocks of the longest cached beginning that leaves a token over."""
        found: list[tuple[tuple[int, ...], int]] = []
        known = dict(self.cached)
        for prefix in self.prefixes(tokens):
            if prefix not in known or len(prefix) == len(tokens):
                break
            found.append((prefix, known[prefix]))
        for prefix, block_id in reversed(found):
            self.touch(prefix, block_id)
        return [block_id for _, block_id in found]

    def insert(self, tokens: list[int], block_ids: list[int]) -> None:
        """Take the full blocks whose prefix is new."""
        for prefix, block_id in reversed(list(zip(self.prefixes(tokens), block_ids, strict=False))):
            self.touch(prefix, block_id)

    def evict(self, num_blocks: int) -> int:
        """Drop the first ones that the cache alone owns."""
        unused = [entry for entry in self.cached if self.owners(entry[1]) == 1][:num_blocks]
        self.cached = [entry for entry in self.cached if entry not in unused]
        return len(unused)

    def owners_problem(self, owners: Any) -> str | None:
        """How the reference counts differ from the books."""
        for block_id, name in self.names.items():
            if owners[block_id] != self.owners(block_id):
                return f"{name} must have {count_of(self.owners(block_id), 'owner')}, got {short(owners[block_id])}"
        return None

    def free_problem(self, num_free: Any) -> str | None:
        """How the number of free blocks differs from the books."""
        expected = sum(self.owners(block_id) == 0 for block_id in range(self.num_blocks))
        return None if num_free == expected else f"{count_of(expected, 'block')} must be free, got {short(num_free)}"
