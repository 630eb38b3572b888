"""Checks of `paged_decode_split`: contexts in splits, between guard zones, against attention in float64.

Memory that no kernel has written is NaN in the driver's process. The sizes are such that the room for splits is a power
of two: what a wrong answer reads behind the written splits is then always such memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace

from grader.checks.day2.kernels import AttentionProperty
from grader.framework import Case, Exercise
from tinyllm.kernels.guards import Inputs


class SplitProperty(AttentionProperty):
    """Calls `paged_decode_split`. In float32 a tile has 32 positions of 128 numbers, so that 32 is a split's least."""

    kernel = "paged_decode_split"

    def launch(self, parts: SimpleNamespace, inputs: Inputs, case: Case) -> None:
        """Write to `inputs.out`."""
        where = (inputs.block_tables, inputs.context_lens, inputs.query_start_loc, case["block_size"])
        options = {"split_size": case["split_size"], "sliding_window": case.get("sliding_window"), "out": inputs.out}
        parts.paged_decode_split(inputs.q, inputs.k_cache, inputs.v_cache, *where, **options)


class WholeContext(SplitProperty):
    """One sequence in one, two and four splits."""

    sentence = "all splits together give attention over the whole context"
    weight = 0.75

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """The last split is whole, or is not; where no score stands out, only the splits' lengths tell their shares."""
        yield self.case(rng, [10], 1, 1, 16, 4, split_size=128)
        yield self.case(rng, [40], 1, 1, 128, 3, split_size=32, sharpness=0.0)
        yield self.case(rng, [60], 1, 1, 128, 3, split_size=32)
        yield self.case(rng, [rng.randint(101, 119)], 1, 1, 128, 4, split_size=32)


class UnequalContexts(SplitProperty):
    """Sequences that fill unequal numbers of splits."""

    sentence = "a sequence with a short context uses the splits that it has written, and no others"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """A short one beside a long one, then an empty one too."""
        yield self.case(rng, [60, 5], 1, 1, 128, 3, split_size=32)
        yield self.case(rng, [rng.randint(33, 60), 0, 32], 1, 1, 128, 3, split_size=32)


class LargeScores(SplitProperty):
    """Scores far from 0, different from split to split."""

    sentence = "large scores neither overflow nor vanish"
    weight = 0.25

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """Large ones, then large negative ones."""
        yield self.case(rng, [60], 1, 1, 128, 3, split_size=32, sharpness=60.0)
        yield self.case(rng, [60], 1, 1, 128, 3, split_size=32, sharpness=60.0, opposed=True)


class AsInTheEngine(SplitProperty):
    """What a step of the engine brings besides."""

    sentence = "query heads in groups, chunks of prompt left alone, sliding windows, float16"
    weight = 0.5

    def random_cases(self, rng: random.Random) -> Iterator[Case]:
        """One of each."""
        yield self.case(rng, [60], 4, 2, 128, 3, split_size=32)
        yield self.case(rng, [40, 5], 2, 1, 128, 3, split_size=32, query_lens=[1, 2])
        yield self.case(rng, [rng.randint(70, 90)], 1, 1, 128, 3, split_size=32, sliding_window=40)
        yield self.case(rng, [50], 2, 1, 256, 3, split_size=32, dtype="float16")


EXERCISE = Exercise(
    name="paged_decode_split",
    kind="kernel",
    properties=(WholeContext(), UnequalContexts(), LargeScores(), AsInTheEngine()),
    twins=(
        "tinyllm.kernels.reference:paged_attention",
        "tinyllm.engine.paged_attention:paged_attention",
        "tinyllm.kernels.paged_decode:launch_paged_decode",
        "tinyllm.kernels.paged_prefill:launch_paged_prefill",
    ),
)
