"""The checks of the kernels: what they refuse beyond the named mistakes, what they accept, and their oracle."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.cells import assert_none_is_right

from grader.build.sources import exercise_sources
from grader.checks.day2.kernels import expected_row, inputs_of, row_problem
from grader.framework import Exercise, Outcome, Property
from grader.mutants import as_cell
from grader.running import LocalDriver, run
from tinyllm.kernels.cases import KERNELS
from tinyllm.kernels.guards import CANARY
from tinyllm.parts import all_parts
from tinyllm.paths import project_root

EXERCISES: dict[str, Exercise] = {name: import_module(f"grader.checks.day2.{name}").EXERCISE for name in KERNELS}
ATTENTION = [
    (name, item)
    for name in KERNELS
    if name != "store_kv"
    for item in EXERCISES[name].properties
    if "seen" not in next(iter(item.fixed_cases()))  # of softmax_step alone
]

NONSENSE: list[Any] = [
    None,
    0,
    "",
    [],
    {},
    {"out": None, "changed": []},
    {"out": torch.zeros(1), "changed": []},
    {"out": [[0.0]], "changed": []},
    torch.zeros(3, 3),
    {"K": None, "V": None, "changed": []},
    {"K": torch.zeros(1), "V": torch.zeros(1), "changed": []},
]


@pytest.mark.parametrize("name", KERNELS)
def test_no_nonsense_is_right(name: str) -> None:
    for item in EXERCISES[name].properties:
        for case in item.cases(random.Random(0)):
            assert_none_is_right(item, case, NONSENSE)


@pytest.mark.parametrize(("name", "item"), ATTENTION, ids=lambda value: getattr(value, "sentence", value))
def test_the_oracle_agrees_with_torch(name: str, item: Property) -> None:
    for case in item.cases(random.Random(3)):
        assert case["kernel"] == name
        inputs = inputs_of(case, "cpu")
        for sequence, query_len in enumerate(case["query_lens"]):
            context_len, size = case["context_lens"][sequence], case["block_size"]
            if not query_len or not context_len:
                continue
            table = inputs.block_tables[sequence].long()
            slots = (table[:, None] * size + torch.arange(size)).flatten()[:context_len]
            rows = slice(*inputs.query_start_loc[sequence : sequence + 2].tolist())
            distance = torch.arange(context_len - query_len, context_len)[:, None] - torch.arange(context_len)
            visible = (distance >= 0) & (distance < (case.get("sliding_window") or context_len))
            q, k, v = (
                x.double().transpose(0, 1) for x in (inputs.q[rows], inputs.k_cache[slots], inputs.v_cache[slots])
            )
            whole = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, enable_gqa=True).transpose(0, 1)
            for number in range(query_len):
                torch.testing.assert_close(expected_row(inputs, case, sequence, number), whole[number])


def test_a_row_is_told_in_words() -> None:
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    assert row_problem(expected, expected + 1e-9, 1e-6) is None
    assert row_problem(expected, torch.full((2, 2), CANARY).double(), 1e-6) == "its output is never written"
    wrong = expected.clone()
    wrong[1, 0] = 3.5
    assert row_problem(expected, wrong, 1e-6) == "head 1: 1 of 2 numbers are wrong, first number 0: expected 3, got 3.5"
    wrong[0, 1] = float("nan")
    assert str(row_problem(expected, wrong, 1e-6)).startswith("head 0: NaN or infinite")


# ---------------------------------------------------------------- answers without a name


def refused(name: str, source: str, mistake: str) -> bool:
    """Whether the first two properties see that a cell is wrong."""
    exercise = replace(EXERCISES[name], properties=EXERCISES[name].properties[:2])
    result = run(exercise, 2, LocalDriver(exercise, as_cell(exercise, source, mistake)))
    return result.outcome in (Outcome.WRONG, Outcome.CRASHED)


ATTEND = "q, k_cache, v_cache, *rest, out=None, **options"
CALL = "    right(q, k_cache, v_cache, *rest, out=out, **options)\n"
WRONG = {
    "does nothing": "    return out\n",
    "changes the queries": CALL + "    q.mul_(2)\n",
    "changes the pool": CALL + "    k_cache[int(rest[0][0, 0]) * rest[3]] = 0\n",
    "changes the block table": CALL + "    rest[0][0, -1] = 0\n",
    "writes to a tensor of its own": "    return right(q, k_cache, v_cache, *rest, **options)\n",
    "rounds to bfloat16": "    right(q.bfloat16().to(q.dtype), k_cache, v_cache, *rest, out=out, **options)\n",
    "reads one position too many": "    rest = (rest[0], rest[1] + 1, *rest[2:])\n" + CALL,
    "swaps keys and values": "    right(q, v_cache, k_cache, *rest, out=out, **options)\n",
    "forgets the scale": "    right(q, k_cache, v_cache, *rest, out=out, scale=1.0, **options)\n",
}


@pytest.mark.needs("triton")
@pytest.mark.parametrize("mistake", WRONG)
@pytest.mark.parametrize("name", KERNELS[1:])
def test_wrong_answers_without_a_name_are_refused_too(name: str, mistake: str) -> None:
    source = f"{exercise_sources(name).solution}\n\nright = {name}\n\ndef {name}({ATTEND}):\n{WRONG[mistake]}"
    assert refused(name, source, mistake)


STORE_WRONG = {
    "does nothing": "    pass\n",
    "changes its input": "    right(k, v, k_cache, v_cache, slots)\n    k.zero_()\n",
    "changes the slots": "    right(k, v, k_cache, v_cache, slots)\n    slots.fill_(0)\n",
    "adds to what is there": "    old = 1 * k_cache\n    right(k, v, k_cache, v_cache, slots)\n    k_cache.add_(old)\n",
    "stores padding last": "    right(k, v, k_cache, v_cache, slots.where(slots >= 0, len(k_cache) - 1))\n",
    "rounds": "    right(k.bfloat16().to(k.dtype), v, k_cache, v_cache, slots)\n",
}


STORE_DIGEST = """
import hashlib, random
import torch
from grader.checks.day2 import store_kv

digest = hashlib.sha256()
for item in store_kv.EXERCISE.properties:
    for case in item.cases(random.Random(0)):
        for tensor in store_kv.tensors(case).values():
            digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
print(digest.hexdigest())
"""


def test_the_numbers_of_a_store_are_the_same_on_every_cpu() -> None:
    """The judge draws them once more, perhaps on another machine than the answer, and nothing may differ."""
    seen = set()
    for capability in ("default", "avx2", "avx512"):  # torch takes the best that there is, where that one is not
        command = [sys.executable, "-c", STORE_DIGEST]
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": str(project_root())}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        seen.add(done.stdout)
    assert len(seen) == 1


@pytest.mark.needs("triton")
@pytest.mark.parametrize("mistake", STORE_WRONG)
def test_wrong_stores_without_a_name_are_refused_too(mistake: str) -> None:
    source = f"{exercise_sources('store_kv').solution}\n\nright = store_kv\n\n"
    source += f"def store_kv(k, v, k_cache, v_cache, slots):\n{STORE_WRONG[mistake]}"
    assert refused("store_kv", source, mistake)


@pytest.mark.needs("triton")
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", KERNELS)
def test_the_reference_is_right_on_many_seeds(name: str) -> None:
    for seed in range(100, 125):
        assert run(EXERCISES[name], seed, LocalDriver(EXERCISES[name], all_parts()[name].reference)), seed
