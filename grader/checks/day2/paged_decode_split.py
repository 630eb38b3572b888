"""Checks of `paged_decode_split`: contexts in splits, between guard zones, against attention in float64.

Memory that no kernel has written is NaN in the driver's process. The sizes are such that the room for splits is a power
of two: what a wrong answer reads behind the written splits is then always such memory. In float32 a tile has 32
positions of 128 numbers, so that 32 is a split's least.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

from grader.checks.day2.kernels import attention_case, attention_prop, drive_attention
from grader.framework import Case, Exercise, Observations

case = partial(attention_case, "paged_decode_split")


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Call the answer."""
    return drive_attention(case, parts.paged_decode_split, split_size=case["split_size"])


def two_lengths(rng: random.Random) -> Iterator[Case]:
    lens = [rng.randint(33, 60), rng.randint(1, 31)]
    yield case(lens, 1, 1, 128, 3, split_size=32, seed=rng.getrandbits(32))


prop = partial(attention_prop, drive=drive)

EXERCISE = Exercise(
    name="paged_decode_split",
    kind="kernel",
    properties=(
        prop(
            "all splits together give attention over the whole context",
            weight=0.75,
            fixed=[  # the last split is whole or not; where no score stands out only the lengths tell the shares
                case([10], 1, 1, 16, 4, split_size=1),
                case([40], 1, 1, 128, 3, split_size=32, sharpness=0.0),
                case([60], 1, 1, 128, 3, split_size=20),
                case([110], 1, 1, 80, 4, split_size=32),
            ],
        ),
        prop(
            "a sequence with a short context uses the splits that it has written, and no others",
            weight=0.5,
            fixed=[  # no split, a whole one, three of four of which the last has one position
                case([60, 5], 1, 1, 128, 3, split_size=32),
                case([47, 0, 32], 1, 1, 128, 3, split_size=32),
                case([101, 65], 1, 1, 128, 16, split_size=32),
            ],
            random=two_lengths,
        ),
        prop(
            "large scores neither overflow nor vanish",
            weight=0.25,
            fixed=[
                case([60], 1, 1, 128, 3, split_size=32, sharpness=60.0, scores="rising"),
                case([60], 1, 1, 128, 3, split_size=32, sharpness=60.0, scores="falling"),
                case([60], 2, 1, 128, 3, split_size=32, sharpness=60.0, scores="of both signs"),
                case([20], 1, 1, 128, 16, split_size=32, scores="far below 0"),
            ],
        ),
        prop(
            "query heads in groups, chunks of prompt left alone, sliding windows, float16",
            weight=0.5,
            fixed=[
                case([60], 4, 2, 128, 3, split_size=32, room=True),
                case([40, 5], 2, 1, 128, 3, split_size=32, query_lens=[1, 2]),
                case([81], 1, 1, 128, 3, split_size=32, sliding_window=40),
                case([50], 2, 1, 256, 3, split_size=32, dtype="float16"),
            ],
        ),
    ),
    twins=(
        "tinyllm.kernels.reference:paged_attention_with_lse",
        "tinyllm.attention.paged_attention:paged_attention",
        "tinyllm.kernels.paged_decode:launch_paged_decode",
        "tinyllm.kernels.paged_prefill:launch_paged_prefill",
    ),
)
