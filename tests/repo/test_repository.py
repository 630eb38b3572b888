"""The shape of the repository: files stay small, notebooks are clean."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path

from tinyllm.paths import project_root

ROOT = project_root()


@cache
def repository_files() -> tuple[Path, ...]:
    """What git tracks or would: not what it ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = tuple(ROOT / name for name in listed.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def python_files(*folders: str) -> list[Path]:
    chosen = [ROOT / folder for folder in folders]
    return [p for p in repository_files() if p.suffix == ".py" and any(p.is_relative_to(f) for f in chosen)]


def test_modules_are_short() -> None:
    files = [p for p in python_files("tinyllm", "grader", "data", "book", "benchmarks") if "tests" not in p.parts]
    long = {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > 400}
    assert not long, f"over 400 lines: {long}"


def test_files_are_small() -> None:
    sizes = {path: path.stat().st_size for path in repository_files()}
    weights = [path for path in sizes if path.match("data/checkpoints/*/model.safetensors")]
    assert sum(sizes[path] for path in weights) < 40e6
    large = {
        str(path.relative_to(ROOT)): sizes[path] for path in sizes.keys() - set(weights) if sizes[path] > 5 * 2**20
    }
    assert not large, f"over 5 MiB: {large}"
    assert sum(sizes.values()) < 64 * 2**20


def test_release_notebooks_hold_no_output() -> None:
    notebooks = [p for p in repository_files() if p.suffix == ".ipynb"]
    for path in notebooks:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [], f"{path}: a cell has an output"
                assert cell["execution_count"] is None, f"{path}: a cell has been run"


def test_the_learners_folder_is_never_committed() -> None:
    assert not [p for p in repository_files() if p.is_relative_to(ROOT / "work")]
    ignored = subprocess.run(["git", "check-ignore", "-q", "work/day1.ipynb"], cwd=ROOT)
    assert ignored.returncode == 0
