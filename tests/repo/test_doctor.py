"""The doctor names what is there, and gives a fix in words for what is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tinyllm import doctor
from tinyllm.doctor import CHECKS, Finding, judge_triton
from tinyllm.paths import SHIPPED


def printed(findings: tuple[Finding, ...]) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(doctor.render(findings))
    return console.export_text()


def test_every_check_runs_here_and_what_is_not_ok_has_a_fix() -> None:
    findings = doctor.examine()
    assert len(findings) == len(CHECKS) == 15
    for found in findings:
        assert found.state in ("ok", "limited", "missing")
        assert found.detail
        assert found.needed_for
        assert (found.fix == "") == (found.state == "ok"), found


def test_the_report_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.doctor(Console(width=200))
    out = capsys.readouterr().out
    for name in ("Python", "torch", "CUDA", "Triton", "Memory", "Embedder", "Chromium", "bubblewrap", "Shipped models"):
        assert name in out


def test_a_fix_is_printed_as_it_stands() -> None:
    out = printed((Finding("torch", "missing", "not [installed]", "everything", doctor.INSTALL),))
    assert "pip install -c constraints.txt -e '.[all]'" in out, "square brackets are no markup"
    assert "not [installed]" in out


def test_a_machine_with_everything_is_told_so() -> None:
    assert "Nothing is missing." in printed((Finding("Python", "ok", "3.11", "everything"),))


@pytest.mark.parametrize(
    ("triton", "numpy", "gpu", "state", "words"),
    [
        ("3.7.1", "2.4.6", False, "ok", "interpreted on the CPU"),
        ("3.7.1", "2.4.6", True, "ok", "compiled on the GPU and interpreted on the CPU"),
        ("3.6.0", "2.3.5", False, "ok", "interpreted on the CPU"),
        ("3.6.0", "2.4.0", False, "missing", "cannot run"),
        ("3.6.0", "2.5.1", True, "limited", "3.6.0, compiled on the GPU"),
        ("3.10.0", "2.5.1", False, "ok", "interpreted"),
        (None, "2.4.0", True, "missing", "not installed"),
    ],
)
def test_triton_beside_numpy(triton: str | None, numpy: str, gpu: bool, state: str, words: str) -> None:
    found = judge_triton(triton, numpy, gpu)
    assert found.state == state
    assert words in found.detail
    if state != "ok":
        assert found.fix


@pytest.mark.parametrize(("version", "expected"), [("2.13.0+cpu", (2, 13, 0)), ("3.7.1rc1", (3, 7, 1)), ("odd", ())])
def test_versions_are_compared_as_numbers(version: str, expected: tuple[int, ...]) -> None:
    assert doctor.numbers(version) == expected


@pytest.mark.parametrize("version", ["2.10.1", "2.16.0", "3.0"])
def test_a_torch_outside_the_range_is_limited(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(doctor, "installed", lambda _: version)
    found = doctor.torch()
    assert found.state == "limited"
    assert "2.11 to 2.15" in found.fix


def test_nothing_installed_is_not_a_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "installed", lambda _: None)
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    monkeypatch.setattr(doctor, "find_program", lambda *_: None)
    monkeypatch.setattr(doctor, "shipped_checkpoint", lambda name="target": tmp_path / name)
    monkeypatch.delenv("CHROMIUM", raising=False)
    missing = {found.name for found in doctor.examine() if found.state == "missing"}
    assert missing >= {
        "torch",
        "Triton",
        "Shipped models",
        "Notebooks",
        "Embedder",
        "hnswlib",
        "Chromium",
        "bubblewrap",
    }
    assert missing >= {"g++", "Node", "mdBook"}


def test_a_sandbox_that_is_not_permitted_is_no_sandbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "bwrap"
    script.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'bubblewrap 9' && exit 0\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(doctor, "find_program", lambda *_: str(script))
    found = doctor.bubblewrap()
    assert found.state == "limited"
    assert "user namespaces" in found.fix


def test_a_half_copied_checkpoint_names_the_missing_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in SHIPPED:
        (tmp_path / name).mkdir()
        for file in ("config.json", "tokenizer.json", "model.safetensors"):
            (tmp_path / name / file).write_text("{}")
    monkeypatch.setattr(doctor, "shipped_checkpoint", lambda name="target": tmp_path / name)
    assert doctor.checkpoint().state == "ok"
    (tmp_path / "draft" / "model.safetensors").unlink()
    found = doctor.checkpoint()
    assert found.state == "missing"
    assert found.detail == f"draft/model.safetensors not in {tmp_path}"


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, *_, **__: str(2**30))
    found = doctor.memory()
    assert found.state == "limited"
    assert "1.0 GiB" in found.detail


def test_the_doctor_needs_only_rich(tmp_path: Path) -> None:
    """A machine where the installation went wrong is where the doctor is needed."""
    program = (
        "import sys\n"
        "for name in ('torch', 'triton', 'nbformat', 'jupyterlab', 'typer', 'psutil'): sys.modules[name] = None\n"
        "from tinyllm.doctor import judge_triton, render\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
