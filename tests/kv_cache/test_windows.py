"""Windows, sinks, forks, prefix hits and drafts that are taken back, over a pool whose blocks carry scales.

The cache manager is held against lists of tokens: what a window or a sink still needs must be read back as it was
written, and every block must have as many references as it has owners.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from support.scaled_storage import ScaledKVCache
from torch import Tensor

from tinyllm.config import CacheConfig, ModelConfig
from tinyllm.kv_cache.manager import KVCacheManager
from tinyllm.kv_cache.storage import PagedKVCache
from tinyllm.parts import resolve

MODEL = ModelConfig(
    vocab_size=2, hidden_size=4, intermediate_size=4, num_layers=2, num_heads=2, num_kv_heads=2, head_dim=3
)
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=11)  # two tokens only, so that prefixes meet often


def make_manager(
    num_blocks: int, block_size: int, storage: type = PagedKVCache, windows: bool = True, prefix_caching: bool = True
) -> KVCacheManager:
    config = CacheConfig(block_size, num_blocks, prefix_caching)
    return KVCacheManager(MODEL, config, resolve({"PagedKVCache": storage}), torch.float32, "cpu", windows=windows)


def vector(history: list[int]) -> Tensor:
    """[Hkv, D], its own for every history, and so unequal in size that one of another's scale is far off."""
    digest = hashlib.blake2b(bytes(history)).digest()
    numbers = torch.tensor(list(digest[: MODEL.num_kv_heads * MODEL.head_dim]), dtype=torch.float32) - 127.5
    return numbers.view(MODEL.num_kv_heads, MODEL.head_dim) * 10.0 ** (digest[-1] % 7 - 3)


@dataclass(eq=False)
class Sequence:
    """What a request should be: its tokens, what its queries see, and up to where it may have lost them."""

    name: str
    tokens: list[int]
    window: int | None
    num_sinks: int
    released: int = 0

    def needed(self) -> list[int]:
        """The positions that must be there."""
        return [p for p in range(len(self.tokens)) if p < self.num_sinks or p >= self.released]


class WindowMachine(RuleBasedStateMachine):
    """Random traffic over one manager."""

    sequences = Bundle("sequences")

    @initialize(num_blocks=st.integers(2, 14), block_size=st.integers(1, 4))
    def make_pool(self, num_blocks: int, block_size: int) -> None:
        self.size = block_size
        self.kv = make_manager(num_blocks, block_size, ScaledKVCache)
        self.live: list[Sequence] = []
        self.num_names = 0

    def new_name(self) -> str:
        self.num_names += 1
        return f"s{self.num_names}"

    def extend(self, sequence: Sequence, tokens: list[int]) -> bool:
        """Append and write; False, with nothing changed, when the pool is full."""
        before = list(self.kv.table(sequence.name).block_ids)
        slots = self.kv.append(sequence.name, len(tokens))
        if slots is None:
            assert self.kv.table(sequence.name).block_ids == before
            return False
        vectors = []
        for token in tokens:
            sequence.tokens.append(token)
            vectors.append(vector(sequence.tokens))
        k = torch.stack(vectors)
        for layer in range(MODEL.num_layers):
            self.kv.storage.write(layer, k * (layer + 1), -k, torch.tensor(slots))
        return True

    @rule(target=sequences, tokens=TOKENS, window=st.none() | st.integers(1, 9), num_sinks=st.integers(0, 5))
    def start(self, tokens: list[int], window: int | None, num_sinks: int):  # type: ignore[no-untyped-def]
        name = self.new_name()
        num_cached = self.kv.start(name, tokens)
        if num_cached is None:
            return multiple()
        sequence = Sequence(name, tokens[:num_cached], window, num_sinks)
        self.live.append(sequence)
        assert self.extend(sequence, tokens[num_cached:]), "start promised room"
        return sequence

    @rule(sequence=sequences, tokens=TOKENS)
    def append(self, sequence: Sequence, tokens: list[int]) -> None:
        self.extend(sequence, tokens)

    @rule(sequence=sequences)
    def slide(self, sequence: Sequence) -> None:
        """The window moves on to the next query, at position `len(tokens)`."""
        if sequence.window is None:
            return
        start = max(sequence.released, len(sequence.tokens) - sequence.window + 1)
        held = self.held(sequence)
        num_released = self.kv.release_before(sequence.name, start, sequence.num_sinks)
        sequence.released = start
        assert self.held(sequence) == held - num_released
        most = -(-sequence.num_sinks // self.size) + -(-(len(sequence.tokens) - start) // self.size) + 1
        assert self.held(sequence) <= most, "a stream must not grow"
        assert self.kv.release_before(sequence.name, start, sequence.num_sinks) == 0, "what is gone is gone"

    def held(self, sequence: Sequence) -> int:
        return sum(block != self.kv.null_block for block in self.kv.table(sequence.name).block_ids)

    @rule(sequence=sequences, num_tokens=st.integers(0, 12))
    def take_back(self, sequence: Sequence, num_tokens: int) -> None:
        """Drafts are rejected; what the window has passed was no draft."""
        kept = max(len(sequence.tokens) - num_tokens, sequence.released)
        self.kv.truncate(sequence.name, kept)
        del sequence.tokens[kept:]

    @rule(target=sequences, sequence=sequences)
    def fork(self, sequence: Sequence) -> Sequence:
        child = Sequence(self.new_name(), list(sequence.tokens), sequence.window, sequence.num_sinks, sequence.released)
        self.kv.fork(sequence.name, child.name)
        self.live.append(child)
        return child

    @rule(sequence=sequences)
    def cache(self, sequence: Sequence) -> None:
        self.kv.cache_blocks(sequence.name, sequence.tokens)

    @rule(sequence=consumes(sequences))
    def free(self, sequence: Sequence) -> None:
        self.kv.free(sequence.name)
        self.live.remove(sequence)

    @invariant()
    def every_block_has_as_many_references_as_owners(self) -> None:
        allocator, cached = self.kv.allocator, self.kv.prefix_cache.blocks.values()
        tables = [self.kv.table(sequence.name).block_ids for sequence in self.live]
        owners = Counter([self.kv.null_block, *cached, *(block for table in tables for block in table)])
        counts = [allocator.ref_count(block) for block in range(self.kv.num_blocks)]
        assert counts == [owners[block] for block in range(self.kv.num_blocks)]
        assert sorted(allocator.free_ids) == [block for block, count in enumerate(counts) if count == 0]
        assert self.kv.null_block not in cached
        held = {block for table in tables for block in table} - {self.kv.null_block}
        assert self.kv.num_blocks_in_tables == len(held)
        assert self.kv.num_cached_blocks == len(set(cached) - held)
        assert self.kv.num_block_references == sum(map(self.held, self.live))
        seen = Counter(name for names in self.kv.owners() for name in names)
        assert seen == Counter({sequence.name: n for sequence in self.live if (n := self.held(sequence))})

    @invariant()
    def what_a_query_may_see_is_as_it_was_written(self) -> None:
        for sequence in self.live:
            needed = sequence.needed()
            if not needed:
                continue
            all_slots = self.kv.table(sequence.name).slots(0, len(sequence.tokens))
            slots = torch.tensor([all_slots[p] for p in needed])
            expected = torch.stack([vector(sequence.tokens[: p + 1]) for p in needed])
            step = expected.abs().amax((1, 2), keepdim=True) / 127  # a number is at most half a step of int8 off
            for layer in range(MODEL.num_layers):
                k, v = self.kv.storage.gather(layer, slots)
                assert ((k / (layer + 1) - expected).abs() <= 0.51 * step).all()
                assert ((v + expected).abs() <= 0.51 * step).all()

    def teardown(self) -> None:
        if not hasattr(self, "kv"):
            return
        for sequence in self.live:
            self.kv.free(sequence.name)
        self.kv.prefix_cache.evict(self.kv.num_blocks)
        assert self.kv.num_free == self.kv.num_blocks - 1, "a block was lost"
        assert self.kv.allocator.ref_count(self.kv.null_block) == 1


WindowMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestWindows = pytest.mark.timeout(600)(WindowMachine.TestCase)


@pytest.mark.parametrize(
    ("position", "num_sinks", "released"),
    [
        (0, 0, []),
        (3, 0, []),
        (4, 0, [0]),
        (11, 0, [0, 1]),
        (12, 1, [1, 2]),
        (12, 4, [1, 2]),
        (12, 5, [2]),
        (100, 0, [0, 1, 2]),
        (100, 100, []),
    ],
)
def test_whole_blocks_between_the_sinks_and_the_position_go(position: int, num_sinks: int, released: list[int]) -> None:
    """14 tokens in blocks of 4: three are full, and the last one is still written to."""
    kv = make_manager(9, 4)
    kv.start("a", range(14))
    kv.append("a", 14)
    assert kv.release_before("a", position, num_sinks) == len(released)
    assert [i for i, block in enumerate(kv.table("a").block_ids) if block == kv.null_block] == released
    assert kv.num_free == 8 - 4 + len(released)
    assert len(kv.table("a").block_ids) == 4, "positions stay where they are"


def test_a_long_stream_takes_the_same_few_blocks() -> None:
    """A window of 10 and 3 sinks, blocks of 4, chunks of 6: never more than 7 blocks beside the null one."""
    kv = make_manager(8, 4, prefix_caching=False)
    kv.start("a", [0])
    kv.append("a", 1)
    for _ in range(300):
        assert kv.append("a", 6) is not None
        kv.release_before("a", kv.table("a").num_tokens - 10 + 1, 3)
    sink = kv.table("a").block_ids[0]
    assert sink != kv.null_block
    kv.free("a")
    assert kv.num_free == 7
    assert kv.allocator.ref_count(sink) == 0


def test_a_block_that_was_given_up_stays_with_its_other_owners() -> None:
    kv = make_manager(9, 4)
    kv.start("a", range(9))
    kv.append("a", 9)
    kv.cache_blocks("a", range(9))
    kv.fork("a", "b")
    blocks = list(kv.table("a").block_ids)
    kv.release_before("a", 8)
    assert kv.table("b").block_ids == blocks
    kv.free("b")
    assert kv.start("c", range(9)) == 8
    assert kv.table("c").block_ids == blocks[:2], "the prefix cache has them still"


def test_behind_a_gap_nothing_is_cached() -> None:
    """The null block must never be found as a prefix, nor a block whose beginning is gone."""
    kv = make_manager(9, 2)
    kv.start("a", range(9))
    kv.append("a", 9)
    kv.release_before("a", 5, num_sinks=1)
    kv.cache_blocks("a", range(9))
    assert kv.start("b", range(9)) == 2, "the sink's block alone"


def test_the_next_token_does_not_go_into_a_block_that_was_given_up() -> None:
    kv = make_manager(9, 4)
    kv.start("a", range(12))
    kv.append("a", 12)
    kv.release_before("a", 8)
    kv.truncate("a", 9)
    kv.truncate("a", 8)
    with pytest.raises(ValueError, match="'a' cannot go back to 7 tokens: their last block was released"):
        kv.truncate("a", 7)


def test_a_pool_without_windows_is_whole_and_releases_nothing() -> None:
    kv = make_manager(2, 4, windows=False)
    assert (kv.null_block, kv.num_free) == (None, 2)
    kv.start("a", range(8))
    with pytest.raises(ValueError, match="windows=True"):
        kv.release_before("a", 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_pool_may_have_another_dtype_than_the_model(dtype: torch.dtype) -> None:
    kv = KVCacheManager(MODEL, CacheConfig(4, 3), resolve(), dtype, "cpu")
    kv.start("a", range(5))
    slots = torch.tensor(kv.append("a", 5))
    k = torch.randn(5, MODEL.num_kv_heads, MODEL.head_dim)
    kv.storage.write(1, k, -k, slots)
    kv.fork("a", "b")
    (slot,) = kv.append("b", 1) or []
    got, _ = kv.storage.gather(1, torch.tensor(kv.table("b").slots(0, 5)))
    assert got.dtype == dtype
    assert torch.equal(got, k.to(dtype))
    assert slot not in kv.table("a").slots(0, 5)
