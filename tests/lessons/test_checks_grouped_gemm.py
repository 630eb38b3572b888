"""The checks of `grouped_gemm_tile`: answers of students that have no name, what is no answer, and the oracle."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.cells import assert_none_is_right

from grader.build.sources import exercise_sources
from grader.checks.day3.grouped_gemm_tile import EXERCISE, case, inputs_of
from grader.framework import Outcome
from grader.mutants import as_cell
from grader.running import Ending, LocalDriver, run
from tinyllm.kernels import reference
from tinyllm.kernels.guards import CANARY
from tinyllm.parts import all_parts
from tinyllm.paths import project_root

CASES = [case for item in EXERCISE.properties for case in item.cases(random.Random(3))]

NONSENSE: list[Any] = [
    None,
    0,
    [],
    {},
    {"out": None, "changed": []},
    {"out": torch.zeros(1), "changed": []},
    {"out": [[0.0]], "changed": []},
    torch.zeros(3, 3),
]


def test_no_nonsense_is_right() -> None:
    for item in EXERCISE.properties:
        for each in item.cases(random.Random(0)):
            assert_none_is_right(item, each, NONSENSE)


def test_the_oracle_agrees_with_that_of_the_kernels() -> None:
    judge = EXERCISE.properties[0].judge
    for each in CASES:
        inputs = inputs_of(each, "cpu")
        products = reference.grouped_gemm(inputs.a, inputs.w, inputs.topk_ids, inputs.topk_weights)
        products[(inputs.topk_ids < 0).flatten()] = CANARY
        out = products.to(inputs.out.dtype)
        assert judge(each, {"out": out, "changed": []}) is None
        assert "writes where nothing of its own is: a" in str(judge(each, {"out": out, "changed": ["a"]}))
        real = int((inputs.topk_ids >= 0).flatten().nonzero()[-1])
        out[real, -1] += 0.1 * (1 + out[real, -1].abs())
        assert str(judge(each, {"out": out, "changed": []})).startswith(f"pair {real} (row ")


def test_a_pair_is_told_in_words() -> None:
    judge, each = EXERCISE.properties[0].judge, case([1, 2], 16, 16, absent=1)
    inputs = inputs_of(each, "cpu")
    absent = int((inputs.topk_ids < 0).flatten().nonzero()[0])
    products = reference.grouped_gemm(inputs.a, inputs.w, inputs.topk_ids).float()
    assert "in no block" in str(judge(each, {"out": products, "changed": []}))
    products[absent] = CANARY
    for value, words in ((CANARY, "never written"), (float("inf"), "NaN or infinite")):
        out = products.clone()
        out[(absent + 1) % 4] = value
        assert words in str(judge(each, {"out": out, "changed": []}))


# ---------------------------------------------------------------- answers without a name

#: Edits of the right answer, as students make them.
WRONG = {
    "swaps a and w": ("tl.dot(a, tl.trans(w), acc", "tl.dot(w, tl.trans(a), acc"),
    "takes its own part of K in each round": ("start + tl.arange(0, BLOCK_K)", "start * 2 + tl.arange(0, BLOCK_K)"),
    "forgets where a round begins": ("start + tl.arange(0, BLOCK_K)", "tl.arange(0, BLOCK_K)"),
    "stores in the order of the block": ("out_ptr + pairs[:, None]", "out_ptr + tl.arange(0, pairs.shape[0])[:, None]"),
    "weighs in every round": (
        "a = load_part(a_rows, k, real, K)",
        """a = load_part(a_rows, k, real, K)
        if WEIGHTED:
            acc *= tl.load(topk_weights_ptr + pairs, mask=real, other=0.0).to(tl.float32)[:, None]""",
    ),
    "weighs twice": (
        "if WEIGHTED:",
        """if WEIGHTED:
        acc *= tl.load(topk_weights_ptr + pairs, mask=real, other=0.0).to(tl.float32)[:, None]""",
    ),
    "weighs the columns": (
        "topk_weights_ptr + pairs, mask=real",
        "topk_weights_ptr + tl.arange(0, pairs.shape[0]), mask=real",
    ),
    "adds to what is there": (
        "tl.store(out,",
        "acc += tl.load(out, mask=real[:, None] & wanted[None, :], other=0.0).to(tl.float32)\n    tl.store(out,",
    ),
    "reads a weight for padding": ("topk_weights_ptr + pairs, mask=real, other=0.0", "topk_weights_ptr + pairs"),
    "has pairs in int32": ("(pairs // PAIRS_PER_ROW) * a_stride", "(pairs.to(tl.int32) // PAIRS_PER_ROW) * a_stride"),
    "stores nothing for the last pair": ("real = pairs < num_pairs", "real = pairs < num_pairs - 1"),
    "rounds the factors to bfloat16": (
        "tl.dot(a, tl.trans(w), acc",
        "tl.dot(a.to(tl.bfloat16).to(tl.float32), tl.trans(w).to(tl.float32), acc",
    ),
    "stores by the stride of a": ("pairs[:, None] * N + columns", "pairs[:, None] * a_stride + columns"),
    "reads weights that are not there": ("if WEIGHTED:", "if num_pairs > 0:"),
}


@pytest.mark.needs("triton")
@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_tiles_without_a_name_are_refused_too(mistake: str) -> None:
    solution = exercise_sources("grouped_gemm_tile").solution
    assert solution.count(WRONG[mistake][0]) == 1
    answer = as_cell(EXERCISE, solution.replace(*WRONG[mistake]), mistake)
    assert run(EXERCISE, 2, LocalDriver(EXERCISE, answer)).outcome in (Outcome.WRONG, Outcome.CRASHED)


@pytest.mark.needs("triton")
def test_an_error_in_a_helper_of_the_course_names_the_line_that_calls_it() -> None:
    solution = exercise_sources("grouped_gemm_tile").solution
    answer = as_cell(
        EXERCISE, solution.replace("load_part(w_rows, k, wanted, K)", "load_part(w_rows, k, columns >= 0, K)"), "x"
    )
    report = LocalDriver(EXERCISE, answer)(1, case([16], 16, 5))
    assert report.ending is Ending.CRASHED
    assert "of your code (in `grouped_gemm_tile`): w = load_part(w_rows, k, columns >= 0, K)" in report.message


DIGEST = """
import hashlib, random
import torch
from grader.checks.day3 import grouped_gemm_tile

digest = hashlib.sha256()
for item in grouped_gemm_tile.EXERCISE.properties:
    for case in item.cases(random.Random(0)):
        for tensor in grouped_gemm_tile.inputs_of(case, "cpu").watched.values():
            digest.update(tensor.view(torch.uint8).numpy().tobytes())
print(digest.hexdigest())
"""


def test_the_numbers_are_the_same_on_every_cpu() -> None:
    """The judge draws them once more, perhaps on another machine than the answer."""
    seen = set()
    for capability in ("default", "avx2", "avx512"):
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": str(project_root())}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
        )
        seen.add(done.stdout)
    assert len(seen) == 1


@pytest.mark.needs("triton")
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_reference_is_right_on_many_seeds() -> None:
    random_alone = replace(EXERCISE, properties=EXERCISE.properties[1:2])
    for seed in range(100, 125):
        assert run(random_alone, seed, LocalDriver(random_alone, all_parts()["grouped_gemm_tile"].reference)), seed
