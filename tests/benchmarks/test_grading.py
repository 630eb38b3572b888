"""The study of grading: failures are told, memory is of whole families, committed ratios are those of the times."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

import pytest

from benchmarks.grading import DAYS, run
from grader.sandbox.limits import MIB
from tinyllm.paths import project_root

CHILD = "held = b'x' * (300 * 2**20); import time; time.sleep(1)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}], check=True)"


def test_a_command_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such class"):
        run([sys.executable, "-c", "import sys; sys.exit('no such class')"], tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which is Linux's")
def test_peak_memory_is_of_all_processes(tmp_path: Path) -> None:
    peaks: list[int] = []
    assert run([sys.executable, "-c", PARENT], tmp_path, peaks) >= 1
    assert 300 * MIB < peaks[0] < 500 * MIB


def test_the_committed_ratios_are_those_of_the_times() -> None:
    result = json.loads((project_root() / "benchmarks" / "results" / "grading.json").read_text(encoding="utf-8"))
    students = result["settings"]["students"]
    for day in DAYS:
        found = result[day]
        middle = {name: median(seconds) for name, seconds in found["seconds"].items()}
        assert len(found["seconds"]["one_worker"]) == result["settings"]["runs"]
        assert found["two_workers_speedup"] == pytest.approx(middle["one_worker"] / middle["two_workers"], abs=1e-3)
        share = middle["one_worker"] / students / middle["nbgrader_autograde"]
        assert found["share_of_nbgrader"] == pytest.approx(share, abs=1e-3)
