"""The gate holds for the exercises with Triton kernels, in the interpreter where there is no GPU."""

from __future__ import annotations

from importlib import import_module

import pytest
from support.cells import kernel_sources

from grader.framework import Exercise
from grader.gate import SEEDS, Prover
from tinyllm.kernels.cases import KERNELS

pytestmark = pytest.mark.needs("triton")


def exercise(name: str) -> Exercise:
    found: Exercise = import_module(f"grader.checks.day2.{name}").EXERCISE
    return found


def problems(name: str, seeds: tuple[int, ...]) -> list[str]:
    row = Prover(exercise(name), seeds, sources=kernel_sources(name)).prove()
    assert sum(row.tried.values()) >= 30, "the gate has hardly checked anything"
    return row.problems


@pytest.mark.parametrize("name", KERNELS)
def test_the_gate_holds(name: str) -> None:
    assert problems(name, SEEDS[:1]) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", KERNELS)
def test_the_gate_holds_on_other_seeds(name: str) -> None:
    assert problems(name, SEEDS[1:]) == []
