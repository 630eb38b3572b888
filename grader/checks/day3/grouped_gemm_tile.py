"""Checks of `grouped_gemm_tile`: called by the course's kernel, between guard zones, against a product a pair."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from grader.checks.kernels import TIME_LIMIT, kernel_device, numbers_problem, synchronize
from grader.checks.support import count_of
from grader.framework import Case, Exercise, Observations, Prop
from grader.running.kernel_access import access_rules
from tinyllm.kernels.cases import GroupedCase
from tinyllm.kernels.grouped_gemm import grouped_gemm
from tinyllm.kernels.grouped_inputs import GroupedInputs, make_grouped_inputs
from tinyllm.kernels.guards import CANARY, changed, snapshot
from tinyllm.kernels.selftest import TOLERANCES

#: What a case says beyond the fields of `tinyllm.kernels.cases.GroupedCase`.
OWN = ("seed", "far")


def case(counts: list[int], depth: int, columns: int, *, seed: int = 1, far: bool = False, **changes: Any) -> Case:
    """Experts with so many pairs each, and their matrices: blocks of 16 pairs, and a row of a for each pair.

    Args:
        seed: what the tensors are drawn from.
        far: the rows of a and of the one expert's matrix lie so far apart that offsets pass 2**31.
        changes: other fields of `tinyllm.kernels.cases.GroupedCase`.
    """
    sizes = {"counts": counts, "depth": depth, "columns": columns, "pairs_per_row": 1, "block_size": 16}
    return {**sizes, "seed": seed, "far": far, **changes}


def inputs_of(case: Case, device: str) -> GroupedInputs:
    """The tensors of a case, the same on both sides: what must not be read is NaN, and all of it is watched."""
    fields = {key: value for key, value in case.items() if key not in OWN}
    return make_grouped_inputs(GroupedCase(**{**fields, "counts": tuple(case["counts"])}), device, case["seed"])


def drive(parts: SimpleNamespace, case: Case) -> Observations:
    """The products, and the names of the buffers that have changed beside them."""
    device = kernel_device()
    inputs = inputs_of(case, device)
    before = snapshot(inputs)
    a, w, num_pairs = inputs.a, inputs.w, inputs.topk_ids.numel()
    with access_rules() as rules:
        if case["far"]:
            a, w = rules.spread(a), rules.spread(w[0])[None]
        tile = parts.grouped_gemm_tile
        grouped_gemm(a, w, *inputs.blocks, num_pairs, inputs.topk_weights, out=inputs.out, tile=tile)
        synchronize(device)
    out = inputs.out.clone()
    inputs.out.fill_(CANARY)
    return {"out": out, "changed": changed(inputs, before)}


def judge(case: Case, observations: Observations) -> str | None:
    """Pair by pair, then what nobody should have touched."""
    out, inputs = observations["out"], inputs_of(case, "cpu")
    if not isinstance(out, Tensor) or out.shape != inputs.out.shape:
        return f"out must stay a tensor of shape {list(inputs.out.shape)}"
    allowed = TOLERANCES[case.get("dtype", "float32")]
    for pair, expert in enumerate(inputs.topk_ids.flatten().tolist()):
        row = pair // case["pairs_per_row"]
        problem = product_problem(inputs, pair, row, expert, out[pair].double(), allowed)
        if problem:
            return f"pair {pair} (row {row} of a, expert {expert}): {problem}"
    if observations["changed"]:
        return f"it writes where nothing of its own is: {observations['changed'][0]}"
    return None


def product_problem(inputs: GroupedInputs, pair: int, row: int, expert: int, got: Tensor, allowed: float) -> str | None:
    """What is wrong with the product of one pair, [N] float64, in words."""
    written = bool((got != CANARY).any())
    if expert < 0:
        return "it is written, though it is in no block of an expert" if written else None
    if not written:
        return "its product is never written"
    if not bool(got.isfinite().all()):
        return (
            "NaN or infinite. Something is read that is not of this pair or this expert (around the rows all is NaN "
            "here), or the arithmetic overflows"
        )
    expected = (inputs.w[expert].double() * inputs.a[row].double()).sum(1)
    if inputs.topk_weights is not None:
        expected *= inputs.topk_weights[pair].double()
    return numbers_problem(expected, got, allowed)


def describe(case: Case) -> str:
    """As a learner reads it."""
    pairs = f"experts with {case['counts']} pairs, in blocks of {case['block_size']}"
    absent = [f"{count_of(case['absent'], 'pair')} without an expert"] if case.get("absent") else []
    rows = f"PAIRS_PER_ROW = {case['pairs_per_row']}"
    weights = f"{case['weighted']} weights" if case.get("weighted") else "no weights"
    room = [f"{count_of(case['room'], 'number')} between the rows that are nobody's"] if case.get("room") else []
    far = ["rows so far apart that offsets pass 2**31"] if case["far"] else []
    large = ["sums that float16 cannot hold"] if case.get("large") else []
    dtype = case.get("dtype", "float32")
    return ", ".join(
        [pairs, *absent, f"K = {case['depth']}, N = {case['columns']}", rows, weights, dtype, *room, *far, *large]
    )


def any_shape(rng: random.Random) -> Iterator[Case]:
    counts = [rng.choice((0, 1, 5, 16, 17)) for _ in range(2)] + [rng.randint(1, 20)]
    sizes = rng.randint(1, 70), rng.randint(1, 70)
    yield case(counts, *sizes, block_size=rng.choice((16, 32)), absent=rng.randint(0, 2), seed=rng.getrandbits(32))


prop = partial(Prop, drive=drive, judge=judge, describe=describe, requires="triton", time_limit=TIME_LIMIT)

EXERCISE = Exercise(
    name="grouped_gemm_tile",
    kind="tile",
    properties=(
        prop(
            "each pair of full blocks gets its row times its expert's matrix",
            weight=1.5,
            fixed=[  # float32: 32 numbers of K at a time, and at most 64 columns a program
                case([16], 16, 16),
                case([16], 64, 16),
                case([32], 16, 128),
                case([16, 0, 32], 96, 64),
            ],
        ),
        prop(
            "padding, columns from N on and numbers from K on are neither read nor written",
            weight=1.25,
            fixed=[
                case([1], 16, 16),
                case([5, 2], 16, 16),
                case([16], 16, 5),
                case([16, 16], 16, 70),
                case([16], 7, 16),
                case([16, 16], 40, 16),
                case([3, 0, 18], 33, 20, absent=2),
                case([20], 7, 33, block_size=32),
            ],
            random=any_shape,
        ),
        prop(
            "pairs share a row where PAIRS_PER_ROW says so, and each is weighted once where WEIGHTED does",
            weight=0.75,
            fixed=[
                case([16], 16, 16, pairs_per_row=2),
                case([16], 16, 16, weighted="float32"),
                case([7, 5], 16, 20, pairs_per_row=3),
                case([9, 7], 70, 16, pairs_per_row=2, weighted="float32", absent=2),
                case([16, 4], 40, 16, weighted="float32"),
            ],
        ),
        prop(
            "rows may have room between them or lie far apart, in any dtype, and sums are in float32",
            weight=0.5,
            fixed=[
                case([16], 16, 16, room=5),
                case([5, 3], 40, 20, room=3, pairs_per_row=2),
                case([16], 16, 16, far=True),
                case([5], 40, 20, far=True, room=3, dtype="float16"),
                case([16, 4], 70, 20, dtype="bfloat16", weighted="bfloat16", room=2),
                case([16, 4], 70, 20, dtype="float16", weighted="float32"),
                case([16, 3], 96, 16, dtype="float16", weighted="float16", large=True),
            ],
        ),
    ),
)
