"""Checks of `paged_decode`: one new token a sequence, between guard zones, against attention in float64."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace

from grader.checks.day2.kernels import AttentionProperty
from grader.framework import Case, Exercise
from tinyllm.kernels.guards import Inputs


class DecodeProperty(AttentionProperty):
    """Calls `paged_decode`."""

    kernel = "paged_decode"

    def launch(self, parts: SimpleNamespace, inputs: Inputs, case: Case) -> None:
        """Write to `inputs.out`."""
        where = (inputs.block_tables, inputs.context_lens, inputs.query_start_loc, case["block_size"])
        window = case.get("sliding_window")
        parts.paged_decode(inputs.q, inputs.k_cache, inputs.v_cache, *where, sliding_window=window, out=inputs.out)


class OneSequence(DecodeProperty):
    """Contexts of one tile and of several, whole and broken blocks and tiles."""

    sentence = "a new token attends over all of its context, whatever the order of the blocks"
    weight = 1.0

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Blocks of 1, 3, 4 and 16 slots; 48 numbers a head are padded to 64."""
        yield self.case(rng, [1], 1, 1, 16, 4)
        yield self.case(rng, [10], 1, 1, 16, 4)
        yield self.case(rng, [7], 1, 1, 48, 1)
        yield self.case(rng, [64], 1, 1, 64, 16)
        yield self.case(rng, [rng.randint(65, 90)], 1, 1, 128, 3)


class SideBySide(DecodeProperty):
    """Batches."""

    sentence = "sequences of different lengths, each over its own pages"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Two, then three."""
        yield self.case(rng, [3, 9], 1, 1, 16, 4)
        yield self.case(rng, [rng.randint(33, 50), 1, 32], 1, 1, 128, 16)


class GroupedHeads(DecodeProperty):
    """More query heads than K/V heads."""

    sentence = "each query head reads the K/V head of its group"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """GQA ratios 1, 3 and a random one, and several K/V heads."""
        yield self.case(rng, [5], 2, 2, 16, 4)
        yield self.case(rng, [9], 6, 2, 32, 3)
        ratio = rng.choice((2, 5, 7))
        yield self.case(rng, [rng.randint(2, 20)], 2 * ratio, 2, 16, 5)


class LargeScores(DecodeProperty):
    """Scores far from 0."""

    sentence = "large scores neither overflow nor vanish"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Large ones in two tiles, then large negative ones."""
        yield self.case(rng, [40], 1, 1, 128, 4, sharpness=60.0)
        yield self.case(rng, [20], 1, 1, 64, 4, sharpness=60.0, opposed=True)


class AsInTheEngine(DecodeProperty):
    """What a step of the engine brings besides."""

    sentence = "empty contexts give 0, chunks of prompt are left alone; sliding windows, float16"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """One of each."""
        yield self.case(rng, [4, 0], 1, 1, 16, 4)
        yield self.case(rng, [6, 5, 8], 2, 1, 16, 4, query_lens=[1, 3, 1])
        yield self.case(rng, [20], 1, 1, 16, 4, sliding_window=6)
        yield self.case(rng, [rng.randint(40, 60)], 2, 1, 256, 16, dtype="float16")


EXERCISE = Exercise(
    name="paged_decode",
    kind="kernel",
    properties=(OneSequence(), SideBySide(), GroupedHeads(), LargeScores(), AsInTheEngine()),
    twins=(
        "tinyllm.kernels.reference:paged_attention",
        "tinyllm.engine.paged_attention:paged_attention",
    ),
)
