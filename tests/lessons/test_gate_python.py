"""The gate holds for every exercise in Python; `make gate` runs it on more seeds.

Those with Triton kernels are in test_gate_kernels.py.
"""

from __future__ import annotations

import pytest

from grader.checks import exercises
from grader.mutation.gate import run_gate


@pytest.mark.parametrize("name", [name for name, item in exercises().items() if not item.in_triton])
def test_the_gate_holds(name: str) -> None:
    report = run_gate([name], seeds=(1, 2))
    assert not report.problems
    assert sum(sum(row.tried.values()) for row in report.rows) >= 20, "the gate has hardly checked anything"
