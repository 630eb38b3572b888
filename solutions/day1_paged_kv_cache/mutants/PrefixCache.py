"""Mistakes that people make in `PrefixCache`."""

from collections.abc import Sequence
from itertools import takewhile

from grader.mutants import mutant, unknown_bug, variant
from tinyllm.kv_cache.prefix_cache import ROOT_HASH, PrefixCache, hash_block


@mutant
class MatchesTheWholePrompt(PrefixCache):
    """When every block of a prompt is cached, you return all of them. The model then has no token to compute, and so
    no logits to choose the next one from."""

    def match(self, token_ids: Sequence[int]) -> list[int]:
        hit = []
        for block_hash in self.block_hashes(token_ids):
            if block_hash not in self.blocks:
                break
            hit.append(block_hash)
        for block_hash in reversed(hit):
            self.allocator.share(self.blocks[block_hash])
            self.blocks.move_to_end(block_hash)
        return [self.blocks[block_hash] for block_hash in hit]


@variant(MatchesTheWholePrompt)
class LeavesNothingOver(PrefixCache):
    """The same: it makes the prompt a token longer before it looks."""

    def match(self, token_ids: Sequence[int]) -> list[int]:
        return super().match([*token_ids, 0])


@mutant
class HitIsNotOwned(PrefixCache):
    """The caller does not become an owner of the blocks that `match` returns. They may be evicted, and written to by
    others, while it uses them."""

    def match(self, token_ids: Sequence[int]) -> list[int]:
        hit = []
        for block_hash in self.block_hashes(token_ids[:-1]):
            if block_hash not in self.blocks:
                break
            hit.append(block_hash)
        for block_hash in reversed(hit):
            self.blocks.move_to_end(block_hash)
        return [self.blocks[block_hash] for block_hash in hit]


@variant(HitIsNotOwned)
class LooksUpAndTouches(PrefixCache):
    """The same, with the run of known blocks cut out first."""

    def match(self, token_ids: Sequence[int]) -> list[int]:
        hit = list(takewhile(self.blocks.__contains__, self.block_hashes(token_ids[:-1])))
        block_ids = [self.blocks[block_hash] for block_hash in hit]
        while hit:
            self.blocks.move_to_end(hit.pop())
        return block_ids


@mutant
class SkipsOverAGap(PrefixCache):
    """You go on behind a block that is not cached. A block is of use only if all the tokens before it are there too:
    the first miss ends the match."""

    def match(self, token_ids: Sequence[int]) -> list[int]:
        hit = [block_hash for block_hash in self.block_hashes(token_ids[:-1]) if block_hash in self.blocks]
        for block_hash in reversed(hit):
            self.allocator.share(self.blocks[block_hash])
            self.blocks.move_to_end(block_hash)
        return [self.blocks[block_hash] for block_hash in hit]


@variant(SkipsOverAGap)
class ContinuesAfterAMiss(PrefixCache):
    """The same, as a loop."""

    def match(self, token_ids: Sequence[int]) -> list[int]:
        block_ids: list[int] = []
        for block_hash in reversed(self.block_hashes(token_ids[:-1])):
            block_id = self.blocks.get(block_hash)
            if block_id is None:
                continue
            self.allocator.share(block_id)
            self.blocks.move_to_end(block_hash)
            block_ids.insert(0, block_id)
        return block_ids


@mutant
class ForgetsWhatCameBefore(PrefixCache):
    """You know a block by its own tokens alone. Its keys and values depend on every token before it, so equal tokens
    after another beginning are another block."""

    def block_hashes(self, token_ids: Sequence[int]) -> list[bytes]:
        size = self.block_size
        ends = range(size, len(token_ids) + 1, size)
        return [hash_block(ROOT_HASH, token_ids[end - size : end]) for end in ends]


@variant(ForgetsWhatCameBefore)
class ChainIsNeverLinked(PrefixCache):
    """The same: the parent is asked for, but is always the root."""

    def block_hashes(self, token_ids: Sequence[int]) -> list[bytes]:
        hashes: list[bytes] = []
        parent_hash = ROOT_HASH
        for block in range(len(token_ids) // self.block_size):
            tokens = token_ids[block * self.block_size : (block + 1) * self.block_size]
            hashes.append(hash_block(parent_hash, tokens))
        return hashes


@mutant
class TakesKnownBlocksAgain(PrefixCache):
    """You take a reference for a block whose content is in the cache already. There is one entry for it, so only one
    reference will ever be given back."""

    def insert(self, token_ids: Sequence[int], block_ids: Sequence[int]) -> None:
        known = list(zip(self.block_hashes(token_ids), block_ids, strict=False))
        for block_hash, block_id in reversed(known):
            self.allocator.share(block_id)
            self.blocks.setdefault(block_hash, block_id)
            self.blocks.move_to_end(block_hash)


@variant(TakesKnownBlocksAgain)
class SharesBeforeItLooks(PrefixCache):
    """The same, with all references taken first."""

    def insert(self, token_ids: Sequence[int], block_ids: Sequence[int]) -> None:
        hashes = self.block_hashes(token_ids)
        for block_id in block_ids[: len(hashes)]:
            self.allocator.share(block_id)
        for index in range(len(hashes) - 1, -1, -1):
            if hashes[index] not in self.blocks:
                self.blocks[hashes[index]] = block_ids[index]
            self.blocks.move_to_end(hashes[index])


@mutant
class EvictsBlocksInUse(PrefixCache):
    """You evict blocks that a running request owns as well. That frees no memory, and the next request with this
    prompt has to compute it again."""

    def evict(self, num_blocks: int) -> int:
        victims = list(self.blocks)[:num_blocks]
        for block_hash in victims:
            self.allocator.free(self.blocks.pop(block_hash))
        return len(victims)


@variant(EvictsBlocksInUse)
class PopsTheOldest(PrefixCache):
    """The same, one by one."""

    def evict(self, num_blocks: int) -> int:
        freed = 0
        while self.blocks and freed < num_blocks:
            _, block_id = self.blocks.popitem(last=False)
            self.allocator.free(block_id)
            freed += 1
        return freed


@mutant
class EvictsTheBeginningFirst(PrefixCache):
    """Of one prompt you evict the first block before the last. Without its beginning the rest can never be found
    again: it fills the pool for nothing."""

    def match(self, token_ids: Sequence[int]) -> list[int]:
        block_ids = []
        for block_hash in self.block_hashes(token_ids[:-1]):
            if block_hash not in self.blocks:
                break
            self.allocator.share(self.blocks[block_hash])
            self.blocks.move_to_end(block_hash)
            block_ids.append(self.blocks[block_hash])
        return block_ids

    def insert(self, token_ids: Sequence[int], block_ids: Sequence[int]) -> None:
        for block_hash, block_id in zip(self.block_hashes(token_ids), block_ids, strict=False):
            if block_hash not in self.blocks:
                self.allocator.share(block_id)
                self.blocks[block_hash] = block_id
            self.blocks.move_to_end(block_hash)


@variant(EvictsTheBeginningFirst)
class TurnsEachChainRound(PrefixCache):
    """The same, by touching every block once more, from the first to the last."""

    def match(self, token_ids: Sequence[int]) -> list[int]:
        block_ids = super().match(token_ids)
        for block_hash in self.block_hashes(token_ids)[: len(block_ids)]:
            self.blocks.move_to_end(block_hash)
        return block_ids

    def insert(self, token_ids: Sequence[int], block_ids: Sequence[int]) -> None:
        super().insert(token_ids, block_ids)
        for block_hash in self.block_hashes(token_ids)[: len(block_ids)]:
            self.blocks.move_to_end(block_hash)


@mutant
class MatchIsNoUse(PrefixCache):
    """A match does not count as a use: you evict in the order in which blocks came in, however often one is hit."""

    def match(self, token_ids: Sequence[int]) -> list[int]:
        block_ids = []
        for block_hash in self.block_hashes(token_ids[:-1]):
            if block_hash not in self.blocks:
                break
            self.allocator.share(self.blocks[block_hash])
            block_ids.append(self.blocks[block_hash])
        return block_ids


@variant(MatchIsNoUse)
class PutsTheOrderBack(PrefixCache):
    """The same: the order after a match is the order before it."""

    def match(self, token_ids: Sequence[int]) -> list[int]:
        before = list(self.blocks)
        block_ids = super().match(token_ids)
        for block_hash in before:
            self.blocks.move_to_end(block_hash)
        return block_ids


@unknown_bug
class KeepsWhatItEvicts(PrefixCache):
    """Frees a block and still remembers it."""

    def evict(self, num_blocks: int) -> int:
        unused = [block_id for block_id in self.blocks.values() if self.allocator.ref_count(block_id) == 1]
        for block_id in unused[:num_blocks]:
            self.allocator.free(block_id)
        return min(num_blocks, len(unused))


@unknown_bug
class EvictsTheNewestFirst(PrefixCache):
    """Evicts from the wrong end."""

    def evict(self, num_blocks: int) -> int:
        unused = [h for h, block_id in reversed(self.blocks.items()) if self.allocator.ref_count(block_id) == 1]
        for block_hash in unused[:num_blocks]:
            self.allocator.free(self.blocks.pop(block_hash))
        return min(num_blocks, len(unused))
