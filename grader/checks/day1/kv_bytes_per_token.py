"""Checks of `kv_bytes_per_token`, against a count of the elements one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace

from grader.checks.support import is_number
from grader.framework import Case, Exercise, Observations, Property, plain
from tinyllm.config import ModelConfig


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


class BytesProperty(Property):
    """Calls the function on one model shape."""

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Make the config and ask for the bytes of a token."""
        fields = {key: value for key, value in case.items() if key != "bytes_per_element"}
        config = ModelConfig(vocab_size=1000, intermediate_size=4 * case["hidden_size"], **fields)
        return {"bytes": plain(parts.kv_bytes_per_token(config, case["bytes_per_element"]))}

    def judge(self, case: Case, observations: Observations) -> str | None:
        """The number must be that of the enumeration."""
        expected, got = count_bytes(case), observations.get("bytes")
        if is_number(got) and got == expected:
            return None
        return f"expected {expected} bytes, got {got!r}"


class KeyAndValuePerLayer(BytesProperty):
    """Plain multi-head attention in two-byte elements."""

    sentence = "every layer keeps one key and one value for each head"
    weight = 1.0

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """From one layer with one head upwards."""
        yield shape(1, 1, 1, 4, 2)
        yield shape(3, 1, 1, 4, 2)
        yield shape(2, 3, 3, 5, 2)
        for _ in range(5):
            heads = rng.randint(1, 8)
            yield shape(rng.randint(2, 12), heads, heads, rng.randint(1, 64), 2)


class SharedHeads(BytesProperty):
    """GQA and MQA."""

    sentence = "query heads that share a KV head (GQA) add nothing"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """GQA ratios from 2 up."""
        yield shape(1, 2, 1, 4, 2)
        yield shape(2, 6, 2, 8, 2)
        for _ in range(5):
            kv_heads = rng.randint(1, 8)
            yield shape(rng.randint(1, 12), kv_heads * rng.randint(2, 8), kv_heads, rng.randint(1, 64), 2)


class HeadDimOfTheConfig(BytesProperty):
    """A head size that the hidden size does not give away, as in Qwen3."""

    sentence = "the size of a head is the config's head_dim, whatever the hidden size"
    weight = 0.25

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Heads wider and narrower than hidden_size / num_heads."""
        yield shape(1, 2, 2, 8, 2, hidden=8)
        yield shape(2, 4, 4, 3, 2, hidden=32)
        for _ in range(5):
            heads, head_dim = rng.randint(1, 8), rng.randint(2, 64)
            other = head_dim + rng.choice([-1, 1, head_dim])
            yield shape(rng.randint(1, 12), heads, heads, head_dim, 2, hidden=heads * other)


class BytesPerElement(BytesProperty):
    """Other dtypes than two bytes."""

    sentence = "the bytes follow the dtype of the cache"
    weight = 0.25

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """8-bit, 32-bit and 64-bit elements."""
        yield shape(1, 1, 1, 4, 4)
        yield shape(1, 1, 1, 4, 1)
        for size in (1, 4, 8):
            heads = rng.randint(1, 8)
            yield shape(rng.randint(1, 12), heads, heads, rng.randint(1, 64), size)


EXERCISE = Exercise(
    name="kv_bytes_per_token",
    kind="function",
    properties=(KeyAndValuePerLayer(), SharedHeads(), HeadDimOfTheConfig(), BytesPerElement()),
)
