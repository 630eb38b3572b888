"""Checks of `PagedKVCache`, against plain indexing, one token at a time, in pools that are full of other tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from grader.checks.support import shuffled
from grader.framework import Case, Exercise, Observations, Prop, plain, tensor_problem

POOLS = ("K", "V")
SIZES = ("num_layers", "num_blocks", "block_size", "num_kv_heads", "head_dim")


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Fill the pools, gather, write, copy and gather again, as far as the case says; then look at the pools.

    Those who held the pools from the beginning look at them too.
    """
    cache = parts.PagedKVCache(*(case[name] for name in SIZES), getattr(torch, case["dtype"]))
    held = [cache.k, cache.v]
    for pool, content in zip(held, (case["pool_k"], case["pool_v"]), strict=True):
        pool.copy_(content)
    if "slots" in case:
        cache.gather(case["layer"], case["slots"])
    if "slot_mapping" in case:
        chunks = (case[name].split(case["tokens_a_write"]) for name in ("k", "v", "slot_mapping"))
        for k, v, slot_mapping in zip(*chunks, strict=True):
            cache.write(case["layer"], k, v, slot_mapping)
    if "source" in case:
        cache.copy_block(case["source"], case["target"])
    gathered = cache.gather(case["layer"], case["slots"]) if "slots" in case else None
    return {"gathered": plain(gathered), "pools": plain([cache.k, cache.v]), "held": plain(held)}


def judge(case: Case, observations: Observations) -> str | None:
    """Every slot of every layer, then what was gathered."""
    pools = [pool_afterwards(case, *names) for names in (("pool_k", "k"), ("pool_v", "v"))]
    for name, pool, got in zip(POOLS, pools, observations["pools"], strict=True):
        problem = tensor_problem(f"the pool of {name} ([L, N * P, Hkv, D])", pool, got)
        if problem:
            return problem
    for name, pool, held in zip(POOLS, pools, observations["held"], strict=True):
        if not torch.equal(pool, held):
            return f"the pool of {name} is a new tensor, and whoever holds the old one misses the change: write into it"
    if "slots" not in case:
        return None
    gathered = observations["gathered"]
    if not isinstance(gathered, list) or len(gathered) != 2:
        return "gather must return two tensors, K and V"
    expected = [pool[case["layer"]][case["slots"]] for pool in pools]
    problems = (tensor_problem(*both) for both in zip(POOLS, expected, gathered, strict=True))
    return next(filter(None, problems), None)


def pool_afterwards(case: Case, pool_name: str, new_name: str) -> Tensor:
    """The content of a pool, written and copied slot by slot."""
    pool: Tensor = case[pool_name].clone()
    for token, slot in enumerate(case["slot_mapping"].tolist() if new_name in case else []):
        pool[case["layer"]][slot] = case[new_name][token].to(pool.dtype)
    for offset in range(case["block_size"] if "source" in case else 0):
        source, target = (case[name] * case["block_size"] + offset for name in ("source", "target"))
        for layer in pool:
            layer[target] = layer[source]
    return pool


# ---------------------------------------------------------------- cases

#: [T, Hkv, D] as a model may make it: cut from a fused projection, heads first, with room between the numbers, with
#: one head for all.
LAYOUTS = {
    "plain": lambda draw, t, h, d: draw(t, h, d),
    "fused": lambda draw, t, h, d: draw(t, 3 * h, d)[:, h : 2 * h],
    "heads first": lambda draw, t, h, d: draw(h, t, d).transpose(0, 1),
    "spaced": lambda draw, t, h, d: draw(t, h, 2 * d)[..., ::2],
    "one head": lambda draw, t, h, d: draw(t, 1, d).expand(t, h, d),
}


def cache_case(
    *sizes: int,
    layer: int = 0,
    write: list[int] | None = None,
    tokens_a_write: int = 99,
    copy: tuple[int, int] | None = None,
    gather: list[Any] | None = None,
    turned: bool = False,
    layouts: tuple[str, str] = ("plain", "plain"),
    dtypes: tuple[str, str] = ("float32", "float32"),
    seed: int = 1,
) -> Case:
    """A case, with small whole numbers as content: they are read more easily than others.

    Args:
        sizes: L, N, P, Hkv, D.
        write: the slot of each token.
        copy: source and target.
        gather: the slots to read.
        turned: their rows are the columns of a tensor.
        layouts: of K and V, see LAYOUTS.
        dtypes: of the pool, and of K and V. If they differ, the numbers are such as have to be rounded.
    """
    numbers = torch.Generator().manual_seed(seed)
    pool_dtype, dtype = (getattr(torch, name) for name in dtypes)
    scale = 1.0 if pool_dtype == dtype else 1 / 7

    def draw(*shape: int) -> Tensor:
        return (torch.randint(1, 1000, shape, generator=numbers) * scale).to(dtype)

    layers, blocks, block_size, heads, dim = sizes
    pools = [draw(layers, blocks * block_size, heads, dim).to(pool_dtype) for _ in POOLS]
    case: Case = {**dict(zip(SIZES, sizes, strict=True)), "dtype": dtypes[0], "layer": layer}
    if write is not None:
        k, v = (LAYOUTS[layout](draw, len(write), heads, dim) for layout in layouts)
        case |= {"k": k, "v": v, "slot_mapping": torch.tensor(write, dtype=torch.int64)}
        case["tokens_a_write"] = tokens_a_write
    if copy is not None:
        case |= {"source": copy[0], "target": copy[1]}
    if gather is not None:
        slots = torch.tensor(gather, dtype=torch.int64)
        case["slots"] = slots.T.contiguous().T if turned else slots
    return {**case, "pool_k": pools[0], "pool_v": pools[1]}


def sequences(rng: random.Random, block_size: int, lengths: list[int], tokens_a_write: int) -> Case:
    """Sequences that grow by turns, their blocks anywhere in the pool, read back as one padded batch."""
    num_blocks = sum(-(-length // block_size) for length in lengths) + 1
    free = shuffled(rng, num_blocks)
    slots: list[list[int]] = []
    for length in lengths:
        table = [free.pop() for _ in range(0, length, block_size)]
        slots.append([block * block_size + offset for block in table for offset in range(block_size)][:length])
    by_turns = sorted((number // 2, row, slot) for row, mine in enumerate(slots) for number, slot in enumerate(mine))
    return cache_case(
        *(2, num_blocks, block_size, rng.randint(1, 3), rng.randint(1, 5)),
        layer=rng.randrange(2),
        write=[slot for _, _, slot in by_turns],
        tokens_a_write=tokens_a_write,
        gather=[mine + [0] * (max(lengths) - len(mine)) for mine in slots],
        seed=rng.getrandbits(32),
    )


def any_lengths(rng: random.Random) -> Iterator[Case]:
    for block_size in (1, 4, 16):
        yield sequences(rng, block_size, [rng.randint(1, 20) for _ in range(3)], rng.randint(1, 9))


prop = partial(Prop, drive=drive, judge=judge)

EXERCISE = Exercise(
    name="PagedKVCache",
    kind="class",
    properties=(
        prop(
            "write puts each token's K and V into its slot of its layer, and touches nothing else",
            weight=1.0,
            fixed=[
                cache_case(1, 2, 1, 1, 1, write=[1]),
                cache_case(2, 2, 2, 1, 2, layer=1, write=[2]),
                cache_case(1, 3, 2, 1, 1, write=[1, 4, 2]),
                cache_case(1, 2, 2, 1, 2, write=[]),
                cache_case(1, 4, 2, 1, 2, write=[4, 6, 5, 7]),
                cache_case(1, 2, 2, 1, 2, write=[1, 2], gather=[2, 1]),
                cache_case(3, 4, 16, 2, 5, layer=1, write=[40, 39, 3, 63, 0, 17]),
                cache_case(2, 2, 3, 3, 1, write=[5, 0, 3, 1, 4, 2]),
            ],
        ),
        prop(
            "gather returns K and V in the order of the slots, whatever the shape of the slots",
            weight=0.75,
            fixed=[
                cache_case(1, 2, 1, 1, 1, gather=[1]),
                cache_case(2, 2, 2, 2, 3, layer=1, gather=[2, 3]),
                cache_case(1, 3, 2, 1, 2, gather=[3, 0, 1]),
                cache_case(1, 2, 2, 1, 2, gather=[2, 2]),
                cache_case(1, 3, 2, 1, 2, gather=[[4, 5, 0], [2, 0, 0]]),
                cache_case(1, 4, 2, 1, 2, gather=[4, 6, 5, 7]),
                cache_case(1, 3, 2, 1, 2, gather=[[0, 1, 2], [3, 4, 5]], turned=True),
                cache_case(1, 2, 2, 1, 2, gather=[]),
                cache_case(1, 2, 2, 1, 2, gather=[[], []]),
                cache_case(3, 3, 16, 3, 5, layer=2, gather=[[[47, 0, 9]], [[31, 32, 9]]]),
                cache_case(1, 2, 2, 1, 2, gather=[3, 1], dtypes=("bfloat16", "bfloat16")),
            ],
        ),
        prop(
            "K and V of any strides are written, such as slices of one fused projection",
            weight=0.25,
            fixed=[  # one layer and slots in a row: only the strides are odd
                cache_case(1, 2, 2, 2, 2, write=[1, 2], layouts=("fused", "fused")),
                cache_case(1, 2, 2, 2, 2, write=[1, 2], layouts=("heads first", "heads first")),
                cache_case(1, 2, 2, 2, 3, write=[0, 1, 2], layouts=("fused", "heads first")),
                cache_case(1, 2, 2, 2, 3, write=[0, 1, 2], layouts=("plain", "spaced")),
                cache_case(1, 2, 2, 2, 3, write=[0, 1, 2], layouts=("heads first", "plain")),
                cache_case(1, 2, 2, 3, 2, write=[1, 2, 3], layouts=("one head", "fused")),
            ],
        ),
        prop(
            "K and V of another dtype are stored in the pool's: a float16 pool stays one",
            weight=0.25,
            fixed=[
                cache_case(1, 2, 1, 1, 1, write=[1], dtypes=("float16", "float32")),
                cache_case(1, 2, 2, 2, 2, write=[1, 2], gather=[2, 1], dtypes=("bfloat16", "float32")),
                cache_case(1, 2, 2, 2, 2, write=[1, 2], gather=[2, 1], dtypes=("float32", "bfloat16")),
                cache_case(1, 2, 2, 2, 2, write=[1, 2], dtypes=("float32", "float64")),
                cache_case(1, 2, 2, 2, 2, write=[], dtypes=("bfloat16", "float32")),
            ],
        ),
        prop(
            "sequences that grow by turns, with blocks anywhere in the pool, are read back as if each were alone",
            weight=0.25,
            fixed=[
                sequences(random.Random(6), 2, [3], 3),
                sequences(random.Random(1), 3, [3, 5], 7),
                sequences(random.Random(3), 16, [20, 7, 33], 7),
            ],
            random=any_lengths,
        ),
        prop(
            "copy_block copies every slot of one block over another, K and V, in every layer",
            weight=0.5,
            fixed=[
                cache_case(1, 2, 1, 1, 1, copy=(0, 1)),
                cache_case(1, 2, 2, 1, 1, copy=(0, 1)),
                cache_case(1, 2, 2, 1, 1, copy=(0, 1), gather=[2, 3]),
                cache_case(2, 3, 2, 1, 2, copy=(2, 0)),
                cache_case(1, 2, 2, 1, 1, copy=(1, 1)),
                cache_case(3, 4, 16, 2, 3, copy=(1, 3), dtypes=("bfloat16", "bfloat16")),
            ],
        ),
    ),
)
