"""Checks of `paged_decode`: one new token a sequence, between guard zones, against attention in float64."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor

from grader.checks.day2.kernels import attention_case, attention_prop, drive_attention
from grader.checks.kernels import kernel_device, synchronize
from grader.framework import Case, Exercise, Observations, Prop
from tinyllm.kernels.runtime import tl, triton

case = partial(attention_case, "paged_decode")


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """Call the answer."""
    return drive_attention(case, parts.paged_decode)


def any_shape(rng: random.Random) -> Iterator[Case]:
    heads, dim, size = rng.randint(1, 3), rng.choice((16, 48, 64)), rng.choice((1, 3, 16))
    lens = [rng.randint(1, 50) for _ in range(2)]
    yield case(lens, heads * rng.randint(1, 3), heads, dim, size, seed=rng.getrandbits(32))


#: For rows of a tile whether they see the first tile of scores, and the second.
SEEN = [[False, False], [False, True], [True, False]]
SCORE = -3.0  # wherever a row sees anything
ROWS = 16  # of a tile, and as many columns: what tl.dot asks for


@triton.jit
def steps_kernel(
    scores_ptr: tl.tensor, out_ptr: tl.tensor, TILES: tl.constexpr, SIZE: tl.constexpr, STEP: tl.constexpr
) -> None:
    """Fold tiles of scores, with values that are all 2, and store highest, total and the first of acc of each row."""
    rows, columns = tl.arange(0, SIZE), tl.arange(0, SIZE)
    highest = tl.full([SIZE], float("-inf"), tl.float32)
    total = tl.zeros([SIZE], tl.float32)
    acc = tl.zeros([SIZE, SIZE], tl.float32)
    v = tl.full([SIZE, SIZE], 2.0, tl.float32)
    for tile in range(TILES):
        scores = tl.load(scores_ptr + tile * SIZE * SIZE + rows[:, None] * SIZE + columns[None, :])
        highest, total, acc = STEP(scores, v, highest, total, acc)
    tl.store(out_ptr + rows, highest)
    tl.store(out_ptr + SIZE + rows, total)
    tl.store(out_ptr + 2 * SIZE + rows, tl.max(acc, 1))


def drive_steps(parts: SimpleNamespace, case: Case) -> Observations:
    """Highest, total and acc of each row; None for an answer that has no `softmax_step`."""
    step = parts.paged_decode.__globals__.get("softmax_step")
    if step is None:
        return None
    seen = torch.zeros(2, ROWS, ROWS, dtype=torch.bool, device=kernel_device())
    for row, tiles in enumerate(case["seen"]):
        for tile, sees in enumerate(tiles):
            seen[tile, row] = sees
    scores = torch.where(seen, SCORE, float("-inf"))
    out = torch.zeros(3, ROWS, device=kernel_device())
    steps_kernel[(1,)](scores, out, 2, ROWS, step)
    synchronize(kernel_device())
    return out[:, : len(case["seen"])].T.contiguous()


def judge_steps(case: Case, observations: Observations) -> str | None:
    """All scores that are seen are equal, so each of them counts 1."""
    if observations is None:
        return "the cell has no `softmax_step`"
    if not isinstance(observations, Tensor) or observations.shape != (len(case["seen"]), 3):
        return "softmax_step must return highest, total and acc"
    for tiles, row in zip(case["seen"], observations.tolist(), strict=True):
        count = float(ROWS * sum(tiles))
        expected = (SCORE if count else float("-inf"), count, 2 * count)
        for name, wanted, got in zip(("highest", "total", "acc"), expected, row, strict=True):
            if not (got == wanted or abs(got - wanted) <= 1e-4 * abs(wanted)):
                return f"a row that sees {sees_text(tiles)}: expected {name} {wanted:g}, got {got:g}"
    return None


def sees_text(tiles: list[bool]) -> str:
    """What a row sees of two tiles."""
    return "neither tile" if not any(tiles) else "the first tile alone" if tiles[0] else "the second tile alone"


def describe_steps(case: Case) -> str:
    """As a learner reads it."""
    rows = ", ".join(sees_text(tiles) for tiles in case["seen"])
    return f"softmax_step on two tiles of scores that are {SCORE:g} where a row sees them; rows see {rows}"


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
                case([5], 2, 1, 16, 4, sharpness=60.0, scores="of very different size"),
                case([10], 1, 1, 32, 4, scores="far below 0"),
            ],
        ),
        Prop(
            "a row that sees nothing stays at -inf, 0 and 0, and begins where it sees something",
            weight=0.25,
            fixed=[{"seen": SEEN}],
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
    twins=("tinyllm.kernels.reference:paged_attention_with_lse", "tinyllm.attention.paged_attention:paged_attention"),
)
