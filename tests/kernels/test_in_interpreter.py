"""Every kernel against the oracle in Triton's interpreter, and the engine on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from interpreted import run_interpreted

from tinyllm.kernels.cases import Case, GroupedCase, interpreter_grid
from tinyllm.paths import project_root

pytestmark = [pytest.mark.needs("triton"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The self-test's record of each case, by name, and what it printed."""
    file = tmp_path_factory.mktemp("kernels") / "report.jsonl"
    done = run_interpreted("-m", "tinyllm.kernels.selftest", "--device", "cpu", "--json", str(file))
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    print(done.stdout)
    return {"": (done.returncode, done.stdout + done.stderr), **{r["case"]: r for r in map(json.loads, lines)}}


@pytest.mark.parametrize("case", interpreter_grid(), ids=lambda case: case.name)
def test_a_kernel_agrees_with_the_oracle_and_stays_in_bounds(case: Case | GroupedCase, report: dict[str, Any]) -> None:
    assert case.name in report, f"the process ended before this case: {report[''][1][-1500:]}"
    assert report[case.name]["problems"] == []


def test_the_self_test_says_so_too(report: dict[str, Any]) -> None:
    status, printed = report[""]
    assert status == 0, printed[-1500:]
    assert "largest error" in printed


def test_the_engine_gives_the_same_tokens_on_both_backends() -> None:
    done = run_interpreted("-m", "kernels.engine_tokens")
    assert done.returncode == 0, done.stdout + done.stderr
    answers = json.loads(done.stdout)
    padded = {"triton, padded", "triton in splits, padded", "triton, padded, with drafts"}
    assert set(answers) == {"torch", "triton", "triton in splits", *padded}
    for name, answer in answers.items():
        assert answer["tokens"] == answers["torch"]["tokens"], name
        assert bool(answer["padded_sizes"]) == ("padded" in name)
        assert answer["mixed_steps"] > 0, f"{name}: no step had prefill chunks beside decodes"
        # With drafts requests are done before the pool is full.
        assert answer["preempted"] > 0 or "drafts" in name, f"{name}: the pool was never full"


def test_on_the_cpu_without_the_interpreter_the_error_says_how_to_switch_it_on() -> None:
    program = """
import torch
from tinyllm.kernels.store_kv import store_kv
x = torch.zeros(1, 1, 16)
store_kv(x, x, x.clone(), x.clone(), torch.zeros(1, dtype=torch.int64))
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=project_root(), env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "KernelsUnavailable" in done.stderr
    assert "TRITON_INTERPRET=1" in done.stderr


def test_without_triton_the_error_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "triton.py").write_text("raise ImportError('no triton here')\n")
    program = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
from tinyllm.attention.registry import attention_backend
print(type(attention_backend("auto", "cpu")).__name__)
attention_backend("triton", "cpu")
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, timeout=300)
    assert done.stdout == "TorchAttention\n"
    assert "KernelsUnavailable" in done.stderr
    assert "Linux" in done.stderr
