"""Checks of `paged_decode`: one new token a sequence, between guard zones, against attention in float64."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

from grader.checks.day2.kernels import attention_case, attention_prop, drive_attention
from grader.framework import Case, Exercise, Observations

case = partial(attention_case, "paged_decode")


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Call the answer."""
    return drive_attention(case, parts.paged_decode)


def any_shape(rng: random.Random) -> Iterator[Case]:
    heads, dim, size = rng.randint(1, 3), rng.choice((16, 48, 64)), rng.choice((1, 3, 16))
    yield case(
        [rng.randint(1, 50) for _ in range(2)], heads * rng.randint(1, 3), heads, dim, size, seed=rng.getrandbits(32)
    )


prop = partial(attention_prop, drive=drive)

EXERCISE = Exercise(
    name="paged_decode",
    kind="kernel",
    properties=(
        prop(
            "a new token attends over all of its context, whatever the order of the blocks",
            weight=1.0,
            fixed=[  # one tile and several, whole and broken blocks and tiles; 48 numbers a head are padded to 64
                case([1], 1, 1, 16, 4),
                case([10], 1, 1, 16, 4),
                case([7], 1, 1, 48, 1),
                case([64], 1, 1, 64, 16),
                case([77], 1, 1, 128, 3),
            ],
        ),
        prop(
            "sequences of different lengths, each over its own pages",
            weight=0.5,
            fixed=[case([3, 9], 1, 1, 16, 4), case([41, 1, 32], 1, 1, 128, 16)],
        ),
        prop(
            "each query head reads the K/V head of its group",
            weight=0.5,
            fixed=[case([5], 2, 2, 16, 4), case([9], 6, 2, 32, 3), case([13], 10, 2, 16, 5)],
            random=any_shape,
        ),
        prop(
            "large scores neither overflow nor vanish",
            weight=0.5,
            fixed=[case([40], 1, 1, 128, 4, sharpness=60.0), case([20], 1, 1, 64, 4, sharpness=60.0, opposed=True)],
        ),
        prop(
            "empty contexts give 0, chunks of prompt are left alone; sliding windows, float16",
            weight=0.5,
            fixed=[
                case([4, 0], 1, 1, 16, 4),
                case([6, 5, 8], 2, 1, 16, 4, query_lens=[1, 3, 1]),
                case([20], 1, 1, 16, 4, sliding_window=6),
                case([51], 2, 1, 256, 16, dtype="float16"),
            ],
        ),
    ),
    twins=("tinyllm.kernels.reference:paged_attention", "tinyllm.engine.paged_attention:paged_attention"),
)
