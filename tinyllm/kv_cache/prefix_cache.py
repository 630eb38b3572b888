"""Blocks of prompts seen before, found by what is in them and everything before it."""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

from tinyllm.kv_cache.allocator import BlockAllocator

ROOT_HASH = b""


def hash_block(parent_hash: bytes, token_ids: Sequence[int]) -> bytes:
    """Name a full block by its tokens and, through `parent_hash`, by every token before them.

    The K and V of a token depend on all tokens before it, so equal tokens alone do not make equal blocks.
    """
    return hashlib.blake2b(parent_hash + array("q", token_ids).tobytes(), digest_size=16).digest()


class PrefixCache:
    """Full blocks by hash, least recently used first. The cache is one owner of each block that it holds.

    Attributes:
        blocks: hash to block id, in the order of last use, oldest first.
    """

    def __init__(self, allocator: BlockAllocator, block_size: int) -> None:
        self.allocator = allocator
        self.block_size = block_size
        self.blocks: OrderedDict[bytes, int] = OrderedDict()

    def block_hashes(self, token_ids: Sequence[int]) -> list[bytes]:
        """The hash of every full block of `token_ids`; a partly filled last block has none."""
        hashes: list[bytes] = []
        for end in range(self.block_size, len(token_ids) + 1, self.block_size):
            parent_hash = hashes[-1] if hashes else ROOT_HASH
            hashes.append(hash_block(parent_hash, token_ids[end - self.block_size : end]))
        return hashes

    def match(self, token_ids: Sequence[int]) -> list[int]:
        """The longest run of cached blocks that `token_ids` begins with; the caller becomes an owner of each.

        All of them count as used now. At least one token is always left to compute: without it there would be no
        logits to sample from.
        """
        hit: list[bytes] = []
        for block_hash in self.block_hashes(token_ids[:-1]):
            if block_hash not in self.blocks:
                break
            hit.append(block_hash)
        block_ids = [self.blocks[block_hash] for block_hash in hit]
        for block_id in block_ids:
            self.allocator.share(block_id)
        for block_hash in reversed(hit):  # the first block is touched last: a chain is evicted from its end
            self.blocks.move_to_end(block_hash)
        return block_ids

    def insert(self, token_ids: Sequence[int], block_ids: Sequence[int]) -> None:
        """Remember the full blocks of a sequence whose K and V are computed.

        A block whose content is known already is not taken again. Either way it counts as used now.
        """
        for block_hash, block_id in reversed(list(zip(self.block_hashes(token_ids), block_ids, strict=False))):
            if block_hash not in self.blocks:
                self.allocator.share(block_id)
                self.blocks[block_hash] = block_id
            self.blocks.move_to_end(block_hash)

    def evict(self, num_blocks: int) -> int:
        """Free up to `num_blocks` blocks that nobody else owns, least recently used first.

        Of blocks that were last used together, the last of the sequence goes first: without its beginning the rest
        of a sequence could not be found again.

        Returns:
            How many were freed.
        """
        unused = (h for h, block_id in self.blocks.items() if self.allocator.ref_count(block_id) == 1)
        victims = [block_hash for block_hash, _ in zip(unused, range(num_blocks), strict=False)]
        for block_hash in victims:
            self.allocator.free(self.blocks.pop(block_hash))
        return len(victims)
