"""Checks of `paged_decode`: one new token a sequence, between guard zones, against attention in float64."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor

from grader.checks.day2.kernels import (
    attention_case,
    attention_prop,
    drive_attention,
    kernel_device,
    synchronize,
)
from grader.framework import Case, Exercise, Observations, Prop
from tinyllm.kernels.runtime import tl, triton

case = partial(attention_case, "paged_decode")


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Call the answer."""
    return drive_attention(case, parts.paged_decode)


def any_shape(rng: random.Random) -> Iterator[Case]:
    heads, dim, size = rng.randint(1, 3), rng.choice((16, 48, 64)), rng.choice((1, 3, 16))
    yield case(
        [rng.randint(1, 50) for _ in range(2)], heads * rng.randint(1, 3), heads, dim, size, seed=rng.getrandbits(32)
    )


# ---------------------------------------------------------------- rows that see nothing

#: Tiles in which a row may look nowhere (False) or everywhere.
SEEN = ([False, False], [False, True], [True, False])
ROWS = 16  # of a tile, and as many columns: what tl.dot asks for


@triton.jit
def steps_kernel(
    scores_ptr: tl.tensor, out_ptr: tl.tensor, TILES: tl.constexpr, SIZE: tl.constexpr, STEP: tl.constexpr
) -> None:
    """Fold tiles of scores, with values that are all 1, and store highest, total and the first of acc of each row."""
    rows, columns = tl.arange(0, SIZE), tl.arange(0, SIZE)
    highest = tl.full([SIZE], float("-inf"), tl.float32)
    total = tl.zeros([SIZE], tl.float32)
    acc = tl.zeros([SIZE, SIZE], tl.float32)
    v = tl.full([SIZE, SIZE], 1.0, tl.float32)
    for tile in range(TILES):
        scores = tl.load(scores_ptr + tile * SIZE * SIZE + rows[:, None] * SIZE + columns[None, :])
        highest, total, acc = STEP(scores, v, highest, total, acc)
    tl.store(out_ptr + rows, highest)
    tl.store(out_ptr + SIZE + rows, total)
    tl.store(out_ptr + 2 * SIZE + rows, tl.max(acc, 1))


def drive_steps(parts: SimpleNamespace, case: Case) -> Observations:
    """Highest, total and acc of a row; None for an answer that has no `softmax_step`."""
    step = parts.paged_decode.__globals__.get("softmax_step")
    if step is None:
        return None
    seen = torch.tensor(case["seen"], device=kernel_device())[:, None, None]
    scores = torch.where(seen, case["score"], float("-inf")).expand(-1, ROWS, ROWS).contiguous()
    out = torch.zeros(3, ROWS, device=kernel_device())
    steps_kernel[(1,)](scores, out, len(case["seen"]), ROWS, step)
    synchronize(kernel_device())
    return out[:, 0].clone()


def judge_steps(case: Case, observations: Observations) -> str | None:
    """All scores that are seen are equal, so each of them counts 1."""
    if observations is None:
        return None
    count = float(ROWS * sum(case["seen"]))
    expected = [case["score"] if count else float("-inf"), count, count]
    if not isinstance(observations, Tensor) or observations.shape != (3,):
        return "softmax_step must return highest, total and acc"
    for name, wanted, got in zip(("highest", "total", "acc"), expected, observations.tolist(), strict=True):
        if not (got == wanted or abs(got - wanted) <= 1e-4 * abs(wanted)):
            return f"{name} of such a row: expected {wanted:g}, got {got:g}"
    return None


def describe_steps(case: Case) -> str:
    """As a learner reads it."""
    tiles = " and then ".join(f"scores of {case['score']:g}" if seen else "-inf everywhere" for seen in case["seen"])
    return f"a row of softmax_step that meets tiles of {tiles}"


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
            "each query head reads the K/V head of its group, however the pool lies in memory",
            weight=0.5,
            fixed=[
                case([5], 2, 2, 16, 4),
                case([9], 6, 2, 32, 3),
                case([13], 10, 2, 16, 5),
                case([6], 2, 2, 48, 4, room=True),
                case([9], 1, 1, 16, 4, far=True),
            ],
            random=any_shape,
        ),
        prop(
            "large scores neither overflow nor vanish",
            weight=0.25,
            fixed=[
                case([40], 1, 1, 128, 4, sharpness=60.0),
                case([20], 1, 1, 64, 4, sharpness=60.0, opposed=True),
                case([33], 1, 1, 256, 4, sharpness=60.0, scores="rising"),
                case([33], 1, 1, 256, 4, sharpness=60.0, scores="falling"),
                case([9], 2, 1, 16, 4, sharpness=60.0, scores="of both signs"),
                case([10], 1, 1, 32, 4, scores="far below 0"),
            ],
        ),
        Prop(
            "a row that sees nothing stays at -inf, 0 and 0, and begins where it sees something",
            weight=0.25,
            fixed=[{"seen": seen, "score": -3.0} for seen in SEEN],
            drive=drive_steps,
            judge=judge_steps,
            describe=describe_steps,
            requires="triton",
        ),
        prop(
            "empty contexts give 0, chunks of prompt are left alone; sliding windows, float16, bfloat16",
            weight=0.5,
            fixed=[
                case([4, 0], 1, 1, 16, 4),
                case([6, 5, 8], 2, 1, 16, 4, query_lens=[1, 3, 1]),
                case([20], 1, 1, 16, 4, sliding_window=6),
                case([51], 2, 1, 256, 16, dtype="float16"),
                case([40], 1, 1, 256, 16, dtype="float16", sharpness=0.0, values=2100.0),
                case([9], 1, 1, 16, 4, dtype="bfloat16"),
            ],
        ),
    ),
    twins=("tinyllm.kernels.reference:paged_attention", "tinyllm.engine.paged_attention:paged_attention"),
)
