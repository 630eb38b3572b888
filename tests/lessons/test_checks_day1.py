"""The checks of Day 1: what they must refuse beyond the named mistakes, what they must accept, and their oracles."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.cells import id_of
from support.models import VOCAB, drain, make_engine, tiny_model

from grader.checks import exercises, find_exercise
from grader.checks.day1.kv_bytes_per_token import count_bytes, shape
from grader.checks.day1.reservation_waste import label_slots, pool
from grader.checks.oracles.ownership import OwnershipBooks
from grader.checks.oracles.prefixes import PrefixBooks
from grader.checks.oracles.sharing import SharingBooks
from grader.framework import Exercise, Outcome
from grader.mutants import Specimen, specimens
from grader.running import LocalDriver, run
from grader.usage import UsageError
from tinyllm.config import ModelConfig, SamplingParams
from tinyllm.kv_cache.allocator import BlockAllocator
from tinyllm.kv_cache.block_table import BlockTable
from tinyllm.kv_cache.copy_on_write import CopyOnWrite
from tinyllm.kv_cache.dense import DenseKVCache
from tinyllm.kv_cache.prefix_cache import PrefixCache
from tinyllm.kv_cache.sizing import Snapshot, Waste, kv_bytes_per_token, reservation_waste
from tinyllm.kv_cache.storage import PagedKVCache
from tinyllm.parts import all_parts, resolve

pytestmark = pytest.mark.usefixtures("one_thread")

EXERCISES = [exercise for exercise in exercises().values() if all_parts()[exercise.name].day == 1]
ALTERNATES = [(exercise, item) for exercise in EXERCISES for item in specimens(exercise).alternates]
CLASSES = [(exercise, item) for exercise, item in ALTERNATES if exercise.kind == "class"]


# ---------------------------------------------------------------- what must be accepted


def engine_tokens(parts: dict[str, Any], block_size: int) -> dict[str, Any]:
    """What an engine on these parts says to prompts that begin alike, in a pool that is too small for all of them."""
    rng = random.Random(7)
    common = [rng.randrange(VOCAB) for _ in range(9)]
    engine = make_engine(tiny_model(), resolve(parts), block_size=block_size, num_blocks=64 // block_size)
    for number in range(6):
        prompt = common[: rng.randint(1, 9)] + [rng.randrange(VOCAB) for _ in range(rng.randint(1, 8))]
        sampling = SamplingParams(max_tokens=8, n=1 + number % 3, temperature=0.7 * (number % 2), seed=number)
        engine.add_request(prompt, sampling, str(number))
    with torch.inference_mode():
        return drain(engine)


@pytest.mark.parametrize("block_size", [1, 4])
@pytest.mark.parametrize(("exercise", "item"), CLASSES, ids=id_of)
def test_the_engine_says_the_same_on_an_alternate(exercise: Exercise, item: Specimen, block_size: int) -> None:
    assert engine_tokens({exercise.name: item.obj}, block_size) == engine_tokens({}, block_size)


@pytest.mark.parametrize("which", [0, -1])
def test_the_engine_says_the_same_on_alternates_only(which: int) -> None:
    parts = {exercise.name: specimens(exercise).alternates[which].obj for exercise in EXERCISES}
    assert engine_tokens(parts, 4) == engine_tokens({}, 4)


# ---------------------------------------------------------------- what must be refused


class GivesOneBlockTwice(BlockAllocator):
    def allocate(self, num_blocks: int) -> list[int]:
        return super().allocate(num_blocks)[:1] * num_blocks


class RaisesTheWrongError(BlockAllocator):
    def allocate(self, num_blocks: int) -> list[int]:
        if num_blocks > self.num_free:
            raise ValueError("no room")
        return super().allocate(num_blocks)


class FreesFromTheMiddle(BlockAllocator):
    """Right in everything but a third owner."""

    def free(self, block_id: int) -> None:
        if self.ref_counts[block_id] == 3:
            self.ref_counts[block_id] = 2
        super().free(block_id)


class MovesItsTokens(BlockTable):
    """Slots and blocks are right for the new tokens, but the old ones are no longer where they were written."""

    def append(self, num_tokens: int) -> list[int]:
        slots = super().append(num_tokens)
        self.block_ids[:2] = self.block_ids[:2][::-1]
        return self.slots(self.num_tokens - num_tokens, self.num_tokens) if num_tokens else slots


class ForgetsBlocksOnRelease(BlockTable):
    def release(self) -> None:
        self.block_ids, self.num_tokens = [], 0


class WritesOnlyNewSlots(PagedKVCache):
    """Adds to what is there, which goes well in an empty pool only."""

    def write(self, layer: int, k: torch.Tensor, v: torch.Tensor, slot_mapping: torch.Tensor) -> None:
        self.k[layer].index_add_(0, slot_mapping, k)
        self.v[layer].index_add_(0, slot_mapping, v)


class ScalesItsArgument(PagedKVCache):
    """Stores what it should, and leaves the caller's K doubled."""

    def write(self, layer: int, k: torch.Tensor, v: torch.Tensor, slot_mapping: torch.Tensor) -> None:
        super().write(layer, k, v, slot_mapping)
        k.mul_(2)


class CopiesKeysOnly(PagedKVCache):
    def copy_block(self, source: int, target: int) -> None:
        size = self.block_size
        self.k[:, target * size : (target + 1) * size] = self.k[:, source * size : (source + 1) * size]


class ForksWithoutTokens(CopyOnWrite):
    def fork(self, table: BlockTable) -> BlockTable:
        child = super().fork(table)
        child.num_tokens = 0
        return child


class ForksEagerly(CopyOnWrite):
    """Copies at the fork: each reads its own, but nothing is shared."""

    def fork(self, table: BlockTable) -> BlockTable:
        child = BlockTable(self.allocator, table.block_size)
        child.append(table.num_tokens)
        for source, target in zip(table.block_ids, child.block_ids, strict=True):
            self.copy_block(source, target)
        return child


class NeverSaysItCopies(CopyOnWrite):
    """The engine asks `needs_copy` how much room to make."""

    def needs_copy(self, table: BlockTable) -> bool:
        return False

    def append(self, table: BlockTable, num_tokens: int) -> list[int]:
        return CopyOnWrite(self.allocator, self.copy_block).append(table, num_tokens)


class CacheOwnsNothing(PrefixCache):
    def insert(self, token_ids: Sequence[int], block_ids: Sequence[int]) -> None:
        for block_hash, block_id in zip(self.block_hashes(token_ids), block_ids, strict=False):
            self.blocks[block_hash] = block_id


class SaysWhatWasAsked(PrefixCache):
    def evict(self, num_blocks: int) -> int:
        super().evict(num_blocks)
        return num_blocks


class InsertIsNoUse(PrefixCache):
    def insert(self, token_ids: Sequence[int], block_ids: Sequence[int]) -> None:
        before = list(self.blocks)
        super().insert(token_ids, block_ids)
        for block_hash in reversed(before):
            self.blocks.move_to_end(block_hash, last=False)


class ReplacesKnownBlocks(PrefixCache):
    def insert(self, token_ids: Sequence[int], block_ids: Sequence[int]) -> None:
        for block_hash, _ in zip(self.block_hashes(token_ids), block_ids, strict=False):
            if block_hash in self.blocks:
                self.allocator.free(self.blocks.pop(block_hash))
        super().insert(token_ids, block_ids)


class FindsOneBlockAtMost(PrefixCache):
    def match(self, token_ids: Sequence[int]) -> list[int]:
        return super().match(token_ids[: self.block_size + 1])


def rounds_to_a_power_of_two(config: ModelConfig, bytes_per_element: int) -> int:
    return int(1 << (kv_bytes_per_token(config, bytes_per_element) - 1).bit_length())


def a_plain_tuple(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> tuple[int, ...]:
    return tuple(reservation_waste(requests, num_slots, region, paged))


def rounds_the_pool_up(requests: Sequence[Snapshot], num_slots: int, region: int, paged: bool) -> Waste:
    whole = -(-num_slots // region) * region
    return reservation_waste(requests, whole, region, paged)._replace(external=num_slots % region)


WRONG: list[tuple[str, Callable[..., Any]]] = [
    *[("BlockAllocator", c) for c in (GivesOneBlockTwice, RaisesTheWrongError, FreesFromTheMiddle)],
    *[("BlockTable", c) for c in (MovesItsTokens, ForgetsBlocksOnRelease)],
    *[("PagedKVCache", c) for c in (WritesOnlyNewSlots, ScalesItsArgument, CopiesKeysOnly)],
    *[("CopyOnWrite", c) for c in (ForksWithoutTokens, ForksEagerly, NeverSaysItCopies)],
    *[("PrefixCache", c) for c in (CacheOwnsNothing, SaysWhatWasAsked, InsertIsNoUse, ReplacesKnownBlocks)],
    ("PrefixCache", FindsOneBlockAtMost),
    ("kv_bytes_per_token", rounds_to_a_power_of_two),
    *[("reservation_waste", f) for f in (a_plain_tuple, rounds_the_pool_up)],
]


@pytest.mark.parametrize(("name", "answer"), WRONG, ids=[answer.__name__ for _, answer in WRONG])
def test_wrong_answers_without_a_name_are_refused_too(name: str, answer: Callable[..., Any]) -> None:
    for seed in (1, 2, 3):
        result = run(find_exercise(name), seed, LocalDriver(find_exercise(name), answer))
        assert result.outcome in (Outcome.WRONG, Outcome.CRASHED)


def test_an_unknown_exercise_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"BlockAllocater.*BlockAllocator"):
        find_exercise("BlockAllocater")


# ---------------------------------------------------------------- what a learner reads


def test_a_step_is_told_in_words() -> None:
    exercise = find_exercise("CopyOnWrite")
    first = run(exercise, 1, LocalDriver(exercise, ForksEagerly)).properties[0]
    assert first.case_text == "2 blocks of 2 slots; a new table a of 1 token; fork of a to b"
    assert first.message == "step 2, fork of a to b: it must copy 0 blocks, it copied 1"


def test_messages_name_no_block() -> None:
    """Two ways of making one mistake must read alike, whichever blocks they use."""
    exercise = find_exercise("BlockAllocator")
    first, second = (
        [item.message for item in run(exercise, 1, LocalDriver(exercise, answer)).properties]
        for answer in (GivesOneBlockTwice, reversed_pool(GivesOneBlockTwice))
    )
    assert first == second


def reversed_pool(allocator: type[BlockAllocator]) -> type[BlockAllocator]:
    """The same allocator, handing out its blocks the other way round."""

    def init(self: Any, num_blocks: int) -> None:
        allocator.__init__(self, num_blocks)
        self.free_ids.reverse()

    return type(allocator.__name__, (allocator,), {"__init__": init})


# ---------------------------------------------------------------- the oracles, by hand


def test_bytes_are_those_of_a_real_cache() -> None:
    case = shape(3, 6, 2, 5, 4, hidden=64)
    fields = {key: value for key, value in case.items() if key != "bytes_per_element"}
    config = ModelConfig(vocab_size=10, intermediate_size=8, **fields)
    assert count_bytes(case) == DenseKVCache(config, max_len=1).num_bytes == 240


def test_qwen3_0_6b_takes_112_kib_a_token() -> None:
    assert count_bytes(shape(28, 16, 8, 128, 2, hidden=1024)) == 112 * 1024


def test_a_labeled_pool() -> None:
    requests = [[10, 12], [3, 3]]
    assert label_slots(pool(requests, 35, 16, paged=False)) == {
        "used": 13,
        "reserved": 2,
        "internal": 17,
        "external": 3,
    }
    assert label_slots(pool(requests, 35, 4, paged=True)) == {"used": 13, "reserved": 0, "internal": 3, "external": 3}


def test_ownership_books_take_the_blocks_that_the_answer_chose() -> None:
    books = OwnershipBooks(3)
    assert books.allocate(2, {"value": [2, 0]}) is None
    assert books.allocate(1, {"value": [2]})
    assert books.allocate(2, {"raised": "OutOfBlocksError", "kinds": ["OutOfBlocksError", "MemoryError"]}) is None
    assert books.change("free", 1, {"value": None}) is None
    assert books.change("free", 1, {"value": None})
    assert (books.num_free, books.owners) == (2, {0: 0, 1: 0, 2: 1})


def test_sharing_books_copy_one_block_for_the_first_writer() -> None:
    books = SharingBooks(block_size=4, num_blocks=5)
    steps = [["new", "a", 6], ["fork", "a", "b"], ["append", "b", 1], ["append", "a", 1]]
    assert [books.follow(step) for step in steps] == [0, 0, 1, 0]
    assert books.tokens == {"a": ["a0", "a1", "a2", "a3", "a4", "a5", "a6"], "b": [*books.tokens["a"][:6], "b6"]}
    assert (books.blocks["a"][0] is books.blocks["b"][0], books.num_free()) == (True, 2)
    assert books.follow(["append", "a", 10]) is None


def test_prefix_books_drop_the_end_of_the_oldest_first() -> None:
    books = PrefixBooks(block_size=2, num_blocks=8)
    books.insert([1, 2, 3, 4], [5, 6])
    books.insert([7, 8], [0])
    assert books.match([1, 2, 3, 4]) == [5]
    assert [block_id for _, block_id in books.cached] == [6, 0, 5]
    assert (books.evict(2), books.match([1, 2, 3, 4, 9]), books.match([7, 8, 9])) == (2, [5], [])


def test_a_driver_meets_the_reference_parts_and_one_answer() -> None:
    exercise = find_exercise("BlockTable")
    parts = LocalDriver(exercise, MovesItsTokens).parts
    assert isinstance(parts, SimpleNamespace)
    assert (parts.BlockTable, parts.BlockAllocator) == (MovesItsTokens, BlockAllocator)
