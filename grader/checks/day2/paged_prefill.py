"""Checks of `paged_prefill`: chunks of new tokens, between guard zones, against attention in float64."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

from grader.checks.day2.kernels import attention_case, attention_prop, drive_attention
from grader.framework import Case, Exercise, Observations

case = partial(attention_case, "paged_prefill")


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Call the answer."""
    return drive_attention(case, parts.paged_prefill, max_query_len=max(case["query_lens"]))


def any_chunk(rng: random.Random) -> Iterator[Case]:
    length, dim, size = rng.randint(1, 12), rng.choice((16, 48)), rng.choice((1, 3, 16))
    yield case([length + rng.randint(0, 20)], 2, 1, dim, size, query_lens=[length], seed=rng.getrandbits(32))


prop = partial(attention_prop, drive=drive)

EXERCISE = Exercise(
    name="paged_prefill",
    kind="kernel",
    properties=(
        prop(
            "a whole prompt: each token sees itself and what came before it",
            weight=0.75,
            fixed=[  # one token, a few, then more than one tile of positions and of rows
                case([1], 1, 1, 16, 4, query_lens=[1]),
                case([10], 1, 1, 16, 4, query_lens=[10]),
                case([39], 1, 1, 128, 3, query_lens=[39]),
            ],
        ),
        prop(
            "a chunk sees the context before it",
            weight=0.75,
            fixed=[  # within a tile, a single token, at the end of several tiles and around the end of one
                case([10], 1, 1, 16, 4, query_lens=[3]),
                case([9], 1, 1, 48, 1, query_lens=[1]),
                case([72, 33, 34], 1, 1, 128, 16, query_lens=[5, 3, 3]),
            ],
        ),
        prop(
            "chunks of different lengths, each over its own pages",
            weight=0.5,
            fixed=[  # of the four one has nothing new
                case([6, 4], 1, 1, 16, 4, query_lens=[2, 4]),
                case([9, 4, 3, 25], 1, 1, 32, 3, query_lens=[1, 4, 0, 6]),
            ],
        ),
        prop(
            "each query head reads the K/V head of its group, with the mask of its own token",
            weight=0.5,
            fixed=[  # the fourth with a whole tile before the chunk
                case([5], 2, 2, 16, 4, query_lens=[3]),
                case([8], 4, 2, 16, 4, query_lens=[4]),
                case([14], 5, 1, 32, 3, query_lens=[7]),
                case([40], 2, 2, 80, 4, query_lens=[3], room=True),
                case([5], 1, 1, 16, 4, query_lens=[2], far=True),
            ],
            random=any_chunk,
        ),
        prop(
            "sliding windows, large scores and float16",
            weight=0.5,
            fixed=[  # windows shorter and longer than a tile, that begin in it, behind it, or leave one empty
                case([12], 1, 1, 16, 4, query_lens=[5], sliding_window=4),
                case([55], 1, 1, 128, 4, query_lens=[6], sliding_window=3),
                case([90, 70], 1, 1, 128, 16, query_lens=[5, 5], sliding_window=40),
                case([28], 1, 1, 256, 16, query_lens=[28], sliding_window=3),
                case([28], 1, 1, 256, 16, query_lens=[28], sharpness=60.0, scores="rising"),
                case([70], 1, 1, 128, 4, query_lens=[4], sharpness=60.0, scores="falling"),
                case([9], 2, 1, 16, 4, query_lens=[5], sharpness=60.0, scores="of both signs"),
                case([9], 1, 1, 16, 4, query_lens=[5], scores="far below 0"),
                case([30], 2, 1, 256, 16, query_lens=[5], dtype="float16"),
            ],
        ),
    ),
    twins=(
        "tinyllm.kernels.reference:paged_attention_with_lse",
        "tinyllm.attention.paged_attention:paged_attention",
        "tinyllm.kernels.paged_decode:launch_paged_decode",
        "tinyllm.kernels.paged_decode_split:launch_paged_decode_split",
    ),
)
