"""Checks of `kv_bytes_per_token`, against a count of the elements one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

from grader.checks.support import is_number
from grader.framework import Case, Exercise, Observations, Prop, plain
from tinyllm.config import ModelConfig


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Make the config and ask for the bytes of a token."""
    fields = {key: value for key, value in case.items() if key != "bytes_per_element"}
    config = ModelConfig(vocab_size=1000, intermediate_size=4 * case["hidden_size"], **fields)
    return {"bytes": plain(parts.kv_bytes_per_token(config, case["bytes_per_element"]))}


def judge(case: Case, observations: Observations) -> str | None:
    """The number must be that of the enumeration."""
    expected, got = count_bytes(case), observations.get("bytes")
    if not is_number(got):
        return f"expected a number of bytes, got {got!r}"
    return None if got == expected else f"expected {expected} bytes, got {got:.15g}"


def count_bytes(case: Case) -> int:
    """The bytes of every element that one token leaves in the cache, counted without a formula."""
    total = 0
    for _layer in range(case["num_layers"]):
        for _tensor in ("K", "V"):
            for _head in range(case["num_kv_heads"]):
                for _element in range(case["head_dim"]):
                    total += case["bytes_per_element"]
    return total


def shape(layers: int, heads: int, kv_heads: int, head_dim: int, size: int, hidden: int | None = None) -> Case:
    """A case; `hidden` None makes the hidden size what the query heads add up to."""
    return {
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_size": heads * head_dim if hidden is None else hidden,
        "bytes_per_element": size,
    }


def any_shape(rng: random.Random) -> Iterator[Case]:
    for _ in range(5):
        kv_heads, head_dim, size = rng.randint(1, 8), rng.randint(1, 64), rng.choice((1, 2, 4, 8))
        heads = kv_heads * rng.randint(1, 8)
        yield shape(rng.randint(1, 12), heads, kv_heads, head_dim, size, hidden=heads * rng.randint(1, 64))


prop = partial(Prop, drive=drive, judge=judge)

EXERCISE = Exercise(
    name="kv_bytes_per_token",
    kind="function",
    properties=(
        prop(
            "every layer keeps one key and one value for each head",
            weight=1.0,
            fixed=[shape(1, 1, 1, 4, 2), shape(3, 1, 1, 4, 2), shape(2, 3, 3, 5, 2), shape(11, 7, 7, 50, 2)],
        ),
        prop(
            "query heads that share a KV head (GQA) add nothing",
            weight=0.5,
            fixed=[shape(1, 2, 1, 4, 2), shape(2, 6, 2, 8, 2), shape(7, 32, 4, 33, 2)],
        ),
        prop(
            "the size of a head is the config's head_dim, whatever the hidden size",
            weight=0.25,
            fixed=[shape(1, 2, 2, 8, 2, hidden=8), shape(2, 4, 4, 3, 2, hidden=32), shape(5, 6, 6, 20, 2, hidden=126)],
        ),
        prop(
            "the bytes follow the dtype of the cache",
            weight=0.25,
            fixed=[shape(1, 1, 1, 4, 4), shape(1, 1, 1, 4, 1), shape(3, 2, 2, 9, 8), shape(2, 9, 3, 5, 1, 99)],
            random=any_shape,
        ),
    ),
)
