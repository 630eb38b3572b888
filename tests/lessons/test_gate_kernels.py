"""The gate holds for the exercises with Triton kernels, in the interpreter where there is no GPU."""

from __future__ import annotations

import pytest

from grader.mutation.gate import SEEDS, run_gate
from tinyllm.kernels.cases import KERNELS

pytestmark = pytest.mark.needs("triton")

EXERCISES = (*KERNELS, "grouped_gemm_tile")


def problems(name: str, seeds: tuple[int, ...]) -> tuple[str, ...]:
    report = run_gate([name], seeds=seeds)
    assert sum(sum(row.tried.values()) for row in report.rows) >= 30, "the gate has hardly checked anything"
    return tuple(report.problems)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_gate_holds(name: str) -> None:
    assert problems(name, SEEDS[:1]) == ()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EXERCISES)
def test_the_gate_holds_on_other_seeds(name: str) -> None:
    assert problems(name, SEEDS[1:]) == ()
