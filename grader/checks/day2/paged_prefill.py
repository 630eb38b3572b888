"""Checks of `paged_prefill`: chunks of new tokens, between guard zones, against attention in float64."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace

from grader.checks.day2.kernels import AttentionProperty
from grader.framework import Case, Exercise
from tinyllm.kernels.guards import Inputs


class PrefillProperty(AttentionProperty):
    """Calls `paged_prefill`."""

    kernel = "paged_prefill"

    def launch(self, parts: SimpleNamespace, inputs: Inputs, case: Case) -> None:
        """Write to `inputs.out`."""
        where = (inputs.block_tables, inputs.context_lens, inputs.query_start_loc, case["block_size"])
        options = {"sliding_window": case.get("sliding_window"), "out": inputs.out}
        longest = max(case["query_lens"])
        parts.paged_prefill(inputs.q, inputs.k_cache, inputs.v_cache, *where, max_query_len=longest, **options)


class WholePrompt(PrefillProperty):
    """Prompts in one go."""

    sentence = "a whole prompt: each token sees itself and what came before it"
    weight = 0.75

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """One token, a few, then more than one tile of positions and of rows."""
        yield self.case(rng, [1], 1, 1, 16, 4, query_lens=[1])
        yield self.case(rng, [10], 1, 1, 16, 4, query_lens=[10])
        length = rng.randint(33, 45)
        yield self.case(rng, [length], 1, 1, 128, 3, query_lens=[length])


class ChunkOfAPrompt(PrefillProperty):
    """Chunks behind other tokens."""

    sentence = "a chunk sees the context before it"
    weight = 0.75

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Within a tile, at the end of several, and a single token."""
        yield self.case(rng, [10], 1, 1, 16, 4, query_lens=[3])
        yield self.case(rng, [rng.randint(65, 80)], 1, 1, 128, 16, query_lens=[5])
        yield self.case(rng, [9], 1, 1, 48, 1, query_lens=[1])


class SideBySide(PrefillProperty):
    """Batches."""

    sentence = "chunks of different lengths, each over its own pages"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Two, then four, of which one has nothing new."""
        yield self.case(rng, [6, 4], 1, 1, 16, 4, query_lens=[2, 4])
        yield self.case(rng, [9, 4, 3, rng.randint(20, 30)], 1, 1, 32, 3, query_lens=[1, 4, 0, 6])


class GroupedHeads(PrefillProperty):
    """More query heads than K/V heads."""

    sentence = "each query head reads the K/V head of its group, with the mask of its own token"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """GQA ratios 1, 2 and a random one."""
        yield self.case(rng, [5], 2, 2, 16, 4, query_lens=[3])
        yield self.case(rng, [8], 4, 2, 16, 4, query_lens=[4])
        yield self.case(rng, [rng.randint(9, 20)], rng.choice((3, 5, 6)), 1, 32, 3, query_lens=[7])


class AsInTheEngine(PrefillProperty):
    """What a step of the engine brings besides."""

    sentence = "sliding windows, large scores and float16"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """One of each."""
        yield self.case(rng, [12], 1, 1, 16, 4, query_lens=[5], sliding_window=4)
        yield self.case(rng, [rng.randint(50, 60)], 1, 1, 128, 4, query_lens=[6], sliding_window=3)
        yield self.case(rng, [40], 1, 1, 128, 4, query_lens=[4], sharpness=60.0)
        yield self.case(rng, [30], 2, 1, 256, 16, query_lens=[5], dtype="float16")


EXERCISE = Exercise(
    name="paged_prefill",
    kind="kernel",
    properties=(WholePrompt(), ChunkOfAPrompt(), SideBySide(), GroupedHeads(), AsInTheEngine()),
    twins=(
        "tinyllm.kernels.reference:paged_attention",
        "tinyllm.engine.paged_attention:paged_attention",
        "tinyllm.kernels.paged_decode:launch_paged_decode",
        "tinyllm.kernels.paged_decode_split:launch_paged_decode_split",
    ),
)
