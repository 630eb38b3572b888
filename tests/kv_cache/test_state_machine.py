"""Random operations on allocator, tables, forks and prefix cache together, held against plain bookkeeping."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from tinyllm.kv_cache.allocator import BlockAllocator, OutOfBlocksError
from tinyllm.kv_cache.block_table import BlockTable
from tinyllm.kv_cache.copy_on_write import CopyOnWrite
from tinyllm.kv_cache.prefix_cache import PrefixCache

TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=14)  # two tokens only, so that prefixes meet often


class Sequence:
    """What a sequence should be: its tokens, and the table under test."""

    def __init__(self, table: BlockTable, tokens: list[int]) -> None:
        self.table = table
        self.tokens = tokens


class KVCacheMachine(RuleBasedStateMachine):
    """The memory is a list: a slot holds the whole history of the token that was written to it."""

    sequences = Bundle("sequences")

    @initialize(num_blocks=st.integers(1, 12), block_size=st.sampled_from([1, 2, 3, 4]))
    def make_pool(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.memory: list[tuple[int, ...] | None] = [None] * (num_blocks * block_size)
        self.allocator = BlockAllocator(num_blocks)
        self.copy_on_write = CopyOnWrite(self.allocator, self.copy_block)
        self.prefix_cache = PrefixCache(self.allocator, block_size)
        self.live: list[Sequence] = []

    def copy_block(self, source: int, target: int) -> None:
        size = self.block_size
        self.memory[target * size : (target + 1) * size] = self.memory[source * size : (source + 1) * size]

    def extend(self, sequence: Sequence, tokens: list[int]) -> bool:
        """Append and write; False, with nothing changed, when the pool is full."""
        before = (list(sequence.table.block_ids), sequence.table.num_tokens, list(self.allocator.ref_counts))
        try:
            slots = self.copy_on_write.append(sequence.table, len(tokens))
        except OutOfBlocksError:
            assert before == (
                sequence.table.block_ids,
                sequence.table.num_tokens,
                self.allocator.ref_counts,
            ), "a failed append changed something"
            return False
        assert len(slots) == len(tokens)
        for slot, token in zip(slots, tokens, strict=True):
            sequence.tokens.append(token)
            self.memory[slot] = tuple(sequence.tokens)
        return True

    @rule(target=sequences, tokens=TOKENS)
    def start(self, tokens: list[int]):  # type: ignore[no-untyped-def]
        block_ids = self.prefix_cache.match(tokens)
        num_hit = len(block_ids) * self.block_size
        assert num_hit < len(tokens), "a hit left nothing to compute"
        table = BlockTable(self.allocator, self.block_size, block_ids, num_hit)
        sequence = Sequence(table, tokens[:num_hit])
        if not self.extend(sequence, tokens[num_hit:]):
            table.release()
            return multiple()
        self.live.append(sequence)
        return sequence

    @rule(sequence=sequences, tokens=TOKENS)
    def append(self, sequence: Sequence, tokens: list[int]) -> None:
        self.extend(sequence, tokens)

    @rule(target=sequences, sequence=sequences)
    def fork(self, sequence: Sequence) -> Sequence:
        child = Sequence(self.copy_on_write.fork(sequence.table), list(sequence.tokens))
        self.live.append(child)
        return child

    @rule(sequence=consumes(sequences), remember=st.booleans())
    def release(self, sequence: Sequence, remember: bool) -> None:
        if remember:
            self.prefix_cache.insert(sequence.tokens, sequence.table.block_ids)
        sequence.table.release()
        self.live.remove(sequence)

    @rule(sequence=sequences)
    def remember(self, sequence: Sequence) -> None:
        self.prefix_cache.insert(sequence.tokens, sequence.table.block_ids)

    @rule(num_blocks=st.integers(0, 5))
    def evict(self, num_blocks: int) -> None:
        only_cached = sum(self.allocator.ref_count(b) == 1 for b in self.prefix_cache.blocks.values())
        free_before = self.allocator.num_free
        freed = self.prefix_cache.evict(num_blocks)
        assert freed == min(num_blocks, only_cached)
        assert self.allocator.num_free == free_before + freed

    @invariant()
    def every_block_has_as_many_references_as_owners(self) -> None:
        owners = Counter(block for sequence in self.live for block in sequence.table.block_ids)
        owners.update(self.prefix_cache.blocks.values())
        counts = [self.allocator.ref_count(block) for block in range(self.allocator.num_blocks)]
        assert counts == [owners[block] for block in range(self.allocator.num_blocks)]
        assert sorted(self.allocator.free_ids) == [block for block, count in enumerate(counts) if count == 0]

    @invariant()
    def every_sequence_reads_back_its_own_history(self) -> None:
        for sequence in self.live:
            slots = sequence.table.slots(0, sequence.table.num_tokens)
            expected = [tuple(sequence.tokens[: i + 1]) for i in range(len(sequence.tokens))]
            assert [self.memory[slot] for slot in slots] == expected

    @invariant()
    def every_cached_block_holds_what_its_hash_says(self) -> None:
        for block_hash, block in self.prefix_cache.blocks.items():
            history = self.memory[(block + 1) * self.block_size - 1]
            assert history is not None
            assert self.prefix_cache.block_hashes(history)[-1] == block_hash

    def teardown(self) -> None:
        if not hasattr(self, "allocator"):
            return
        for sequence in self.live:
            sequence.table.release()
        self.prefix_cache.evict(self.allocator.num_blocks)
        assert self.allocator.num_free == self.allocator.num_blocks, "a block was lost"


KVCacheMachine.TestCase.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)
TestKVCache = pytest.mark.timeout(600)(KVCacheMachine.TestCase)
