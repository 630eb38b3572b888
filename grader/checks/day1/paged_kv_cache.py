"""Checks of `PagedKVCache`, against a dense cache and against plain indexing, one token at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from grader.checks.support import shuffled
from grader.framework import Case, Exercise, Observations, Property, generator, plain, tensor_problem

POOLS = ("K", "V")


def sizes(layers: int, blocks: int, block_size: int, kv_heads: int, head_dim: int) -> Case:
    """The part of a case that says how large the pool is."""
    return {
        "num_layers": layers,
        "num_blocks": blocks,
        "block_size": block_size,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim,
    }


def random_sizes(rng: random.Random, block_size: int) -> Case:
    """A small pool."""
    return sizes(rng.randint(1, 3), rng.randint(3, 6), block_size, rng.randint(1, 3), rng.randint(1, 5))


def num_slots(case: Case) -> int:
    """Slots in the pool of a case."""
    return int(case["num_blocks"] * case["block_size"])


def draw(rng: random.Random, *shape: int) -> Tensor:
    """Small whole numbers: they are read more easily than others, and copied alike."""
    return torch.randint(1, 1000, shape, generator=generator(rng)).float()


def normal(rng: random.Random, *shape: int) -> Tensor:
    """Normal numbers, to attend with."""
    return torch.randn(shape, generator=generator(rng))


def draw_pool(rng: random.Random, case: Case) -> Tensor:
    """[L, N * P, Hkv, D] content for one pool."""
    return draw(rng, case["num_layers"], num_slots(case), case["num_kv_heads"], case["head_dim"])


def make_cache(parts: SimpleNamespace, case: Case, k: Tensor | None = None, v: Tensor | None = None) -> Any:
    """The answer's cache, filled through its documented attributes if content is given."""
    cache = parts.PagedKVCache(
        case["num_layers"], case["num_blocks"], case["block_size"], case["num_kv_heads"], case["head_dim"]
    )
    if k is not None and v is not None:
        cache.k.copy_(k)
        cache.v.copy_(v)
    return cache


def pools_problem(case: Case, observations: Any, k: Tensor, v: Tensor) -> str | None:
    """How the pools differ from those expected, with the layer and slot of the first difference in words."""
    for name, expected, got in zip(POOLS, (k, v), observations, strict=True):
        for layer in range(case["num_layers"]):
            if not isinstance(got, Tensor) or got.shape != expected.shape:
                return tensor_problem(f"the pool of {name}", expected, got)
            problem = tensor_problem(f"{name} of layer {layer} ([N * P, Hkv, D])", expected[layer], got[layer])
            if problem:
                return problem
    return None


class WriteToSlots(Property):
    """Writes into pools full of other tokens, and looks at every slot of every layer."""

    sentence = "write puts each token's K and V into its slot of its layer, and touches nothing else"
    weight = 1.0

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """One token, two layers, slots in any order, no token at all; blocks of 1, 3 and 16 slots."""
        yield self.case(rng, sizes(1, 2, 1, 1, 1), 0, [1])
        yield self.case(rng, sizes(2, 2, 2, 1, 2), 1, [2])
        yield self.case(rng, sizes(1, 3, 2, 1, 1), 0, [1, 4, 2])
        yield self.case(rng, sizes(1, 2, 2, 1, 2), 0, [])
        for block_size in (1, 3, 16):
            size = random_sizes(rng, block_size)
            slots = rng.sample(range(num_slots(size)), rng.randint(1, num_slots(size)))
            yield self.case(rng, size, rng.randrange(size["num_layers"]), slots)

    def case(self, rng: random.Random, size: Case, layer: int, slots: list[int]) -> Case:
        """Content of the pools before, and what is written."""
        tokens = (len(slots), size["num_kv_heads"], size["head_dim"])
        return {
            **size,
            "layer": layer,
            "slot_mapping": torch.tensor(slots, dtype=torch.int64),
            "k": draw(rng, *tokens),
            "v": draw(rng, *tokens),
            "pool_k": draw_pool(rng, size),
            "pool_v": draw_pool(rng, size),
        }

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Both pools afterwards."""
        cache = make_cache(parts, case, case["pool_k"], case["pool_v"])
        cache.write(case["layer"], case["k"], case["v"], case["slot_mapping"])
        return [plain(cache.k), plain(cache.v)]

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Token by token."""
        pools = [case["pool_k"].clone(), case["pool_v"].clone()]
        for token, slot in enumerate(case["slot_mapping"].tolist()):
            pools[0][case["layer"]][slot] = case["k"][token]
            pools[1][case["layer"]][slot] = case["v"][token]
        return pools_problem(case, observations, *pools)


class GatherInOrder(Property):
    """Reads from pools with known content."""

    sentence = "gather returns K and V in the order of the slots, whatever the shape of the slots"
    weight = 0.75

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """One slot, slots backwards, a slot twice, a padded batch [B, max_context_len]."""
        yield self.case(rng, sizes(1, 2, 1, 1, 1), 0, [1])
        yield self.case(rng, sizes(2, 2, 2, 2, 3), 1, [2, 3])
        yield self.case(rng, sizes(1, 3, 2, 1, 2), 0, [3, 0, 1])
        yield self.case(rng, sizes(1, 2, 2, 1, 2), 0, [2, 2])
        yield self.case(rng, sizes(1, 3, 2, 1, 2), 0, [[4, 5, 0], [2, 0, 0]])
        yield self.case(rng, sizes(1, 2, 2, 1, 2), 0, [])
        for block_size in (1, 3, 16):
            size = random_sizes(rng, block_size)
            rows, columns = rng.randint(1, 4), rng.randint(1, 9)
            slots = [rng.choices(range(num_slots(size)), k=columns) for _ in range(rows)]
            yield self.case(rng, size, rng.randrange(size["num_layers"]), slots)

    def case(self, rng: random.Random, size: Case, layer: int, slots: list[Any]) -> Case:
        """Content of the pools, and what is read."""
        return {
            **size,
            "layer": layer,
            "slots": torch.tensor(slots, dtype=torch.int64),
            "pool_k": draw_pool(rng, size),
            "pool_v": draw_pool(rng, size),
        }

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """What gather returns."""
        return plain(make_cache(parts, case, case["pool_k"], case["pool_v"]).gather(case["layer"], case["slots"]))

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Slot by slot."""
        if not isinstance(observations, list) or len(observations) != 2:
            return "gather must return two tensors, K and V"
        slots = case["slots"]
        for name, pool, got in zip(POOLS, (case["pool_k"], case["pool_v"]), observations, strict=True):
            expected = torch.zeros(slots.numel(), *pool.shape[2:])
            for row, slot in enumerate(slots.flatten().tolist()):
                expected[row] = pool[case["layer"]][slot]
            problem = tensor_problem(name, expected.reshape(*slots.shape, *pool.shape[2:]), got)
            if problem:
                return problem
        return None


class AnyStrides(WriteToSlots):
    """Writes K and V as a model makes them: pieces of one projection, or transposed."""

    sentence = "K and V of any strides are written, such as slices of one fused projection"
    weight = 0.25

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Slices, then heads before tokens in memory. One layer and slots in a row: only the strides are odd."""
        yield self.fused(rng, sizes(1, 2, 2, 2, 2), [1, 2])
        yield self.transposed(rng, sizes(1, 2, 2, 2, 2), [1, 2])
        for _ in range(2):
            size = sizes(1, rng.randint(2, 4), 3, rng.randint(2, 3), rng.randint(2, 4))
            start = rng.randint(0, 1)
            slots = list(range(start, start + rng.randint(2, 5)))
            yield rng.choice([self.fused, self.transposed])(rng, size, slots)

    def fused(self, rng: random.Random, size: Case, slots: list[int]) -> Case:
        """K and V as slices of [T, 2 * Hkv, D]."""
        both = draw(rng, len(slots), 2 * size["num_kv_heads"], size["head_dim"])
        k, v = both.split(size["num_kv_heads"], dim=1)
        return {**self.case(rng, size, 0, slots), "k": k, "v": v}

    def transposed(self, rng: random.Random, size: Case, slots: list[int]) -> Case:
        """K and V as [Hkv, T, D] seen with tokens first."""
        k, v = (draw(rng, size["num_kv_heads"], len(slots), size["head_dim"]).transpose(0, 1) for _ in POOLS)
        return {**self.case(rng, size, 0, slots), "k": k, "v": v}


class AttendsLikeDense(Property):
    """Several sequences, written in chunks through block tables in any order, then attended over."""

    sentence = "attention over what gather returns equals attention over a dense cache"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """One short sequence, then batches with GQA; lengths that are multiples of the block and that are not."""
        yield self.case(rng, sizes(1, 2, 2, 1, 2), 1, [3])
        yield self.case(rng, sizes(2, 4, 3, 2, 4), 2, [3, 5])
        for block_size in (1, 4, 16):
            lengths = [rng.randint(1, 20) for _ in range(3)]
            blocks = sum(-(-length // block_size) for length in lengths) + 1
            size = sizes(2, blocks, block_size, rng.randint(1, 2), 4)
            yield self.case(rng, size, rng.randint(1, 3), lengths)

    def case(self, rng: random.Random, size: Case, gqa_ratio: int, lengths: list[int]) -> Case:
        """Tokens, block tables and one query a sequence."""
        block_size, num_tokens = size["block_size"], sum(lengths)
        blocks = iter(shuffled(rng, size["num_blocks"]))
        tables = [[next(blocks) for _ in range(-(-length // block_size))] for length in lengths]
        slots = [
            [table[p // block_size] * block_size + p % block_size for p in range(length)]
            for table, length in zip(tables, lengths, strict=True)
        ]
        heads, dim = size["num_kv_heads"], size["head_dim"]
        return {
            **size,
            "slots": slots,
            "chunk": rng.randint(1, 4),
            "k": normal(rng, size["num_layers"], num_tokens, heads, dim),
            "v": normal(rng, size["num_layers"], num_tokens, heads, dim),
            "q": normal(rng, size["num_layers"], len(lengths), heads * gqa_ratio, dim),
        }

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Write a chunk of each sequence by turns, layer by layer; gather all, padded, and attend."""
        cache = make_cache(parts, case)
        lengths = [len(slots) for slots in case["slots"]]
        starts = [sum(lengths[:index]) for index in range(len(lengths))]
        longest, chunk = max(lengths), case["chunk"]
        for begin in range(0, longest, chunk):
            rows = [
                (start + p, slots[p])
                for start, slots in zip(starts, case["slots"], strict=True)
                for p in range(begin, min(begin + chunk, len(slots)))
            ]
            tokens, slot_mapping = (torch.tensor(column) for column in zip(*rows, strict=True))
            for layer in range(case["num_layers"]):
                cache.write(layer, case["k"][layer][tokens], case["v"][layer][tokens], slot_mapping)
        padded = torch.tensor([slots + [0] * (longest - len(slots)) for slots in case["slots"]])
        visible = torch.arange(longest) < torch.tensor(lengths)[:, None]  # [B, longest]
        outputs = []
        for layer in range(case["num_layers"]):
            k, v = cache.gather(layer, padded)
            outputs.append(attend(case["q"][layer], k, v, visible))
        return plain(outputs)

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Each sequence alone, over its own tokens side by side."""
        for layer in range(case["num_layers"]):
            start, rows = 0, []
            for sequence, slots in enumerate(case["slots"]):
                span = slice(start, start + len(slots))
                start += len(slots)
                k, v = case["k"][layer][span][None], case["v"][layer][span][None]
                rows.append(attend(case["q"][layer][sequence : sequence + 1], k, v))
            expected = torch.cat(rows)
            problem = tensor_problem(
                f"the output of layer {layer} ([B, Hq, D])", expected, observations[layer], atol=1e-5
            )
            if problem:
                return problem
        return None


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None) -> Tensor:
    """One query a sequence: q [B, Hq, D]; k, v [B, context, Hkv, D]; visible [B, context]. Gives [B, Hq, D]."""
    group = q.shape[1] // k.shape[2]
    k, v = (x.transpose(1, 2).repeat_interleave(group, dim=1) for x in (k, v))
    mask = None if visible is None else visible[:, None, None, :]
    return F.scaled_dot_product_attention(q[:, :, None], k, v, attn_mask=mask)[:, :, 0]


class CopyABlock(Property):
    """Fills a pool, copies one block over another, and looks at every slot of every layer."""

    sentence = "copy_block copies every slot of one block over another, K and V, in every layer"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Up and down the pool, and onto itself; blocks of 1, 3 and 16 slots."""
        yield self.case(rng, sizes(1, 2, 1, 1, 1), 0, 1)
        yield self.case(rng, sizes(1, 2, 2, 1, 1), 0, 1)
        yield self.case(rng, sizes(2, 3, 2, 1, 2), 2, 0)
        yield self.case(rng, sizes(1, 2, 2, 1, 1), 1, 1)
        for block_size in (1, 3, 16):
            size = random_sizes(rng, block_size)
            yield self.case(rng, size, *rng.sample(range(size["num_blocks"]), 2))

    def case(self, rng: random.Random, size: Case, source: int, target: int) -> Case:
        """Content of the pools before the copy."""
        return {
            **size,
            "source": source,
            "target": target,
            "k": draw_pool(rng, size),
            "v": draw_pool(rng, size),
        }

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Both pools afterwards."""
        cache = make_cache(parts, case, case["k"], case["v"])
        cache.copy_block(case["source"], case["target"])
        return [plain(cache.k), plain(cache.v)]

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Slot by slot."""
        size, pools = case["block_size"], [case["k"].clone(), case["v"].clone()]
        for pool in pools:
            for layer in pool:
                for offset in range(size):
                    layer[case["target"] * size + offset] = layer[case["source"] * size + offset]
        return pools_problem(case, observations, *pools)


EXERCISE = Exercise(
    name="PagedKVCache",
    kind="class",
    properties=(WriteToSlots(), GatherInOrder(), AnyStrides(), AttendsLikeDense(), CopyABlock()),
)
