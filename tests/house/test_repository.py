"""The shape of the repository: imports run one way, files stay small, notebooks are clean."""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tinyllm.paths import project_root

ROOT = project_root()

#: From the bottom up: a package may import from those below its own line, and from itself.
LAYERS = (
    {
        "errors",
        "files",
        "names",
        "checkpoint",
        "config",
        "options",
        "sampling_params",
        "paths",
        "part_table",
        "parts",
        "recorded",
        "boundary",
        "traces",
    },
    {"kv_cache", "kernels"},
    {"model", "speculative", "long_context"},
    {"attention"},
    {"engine"},
    {"rag", "agent"},
    {"serving"},
)
TOP = len(LAYERS)  # the command line, the doctor, the plots: nothing below imports them


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


def imported(path: Path) -> Iterator[str]:
    """The full names of the modules (or of things in modules) that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; the project uses full names"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(package: str) -> int:
    return next((i for i, names in enumerate(LAYERS) if package in names), TOP)


def package_of(path: Path) -> str:
    """The part of tinyllm that a file belongs to: its folder, or the module itself."""
    return path.relative_to(ROOT / "tinyllm").with_suffix("").parts[0]


def may_import(package: str, target: str) -> bool:
    """Whether one part of tinyllm may import another: from below, and among themselves at the bottom and the top."""
    if target == package or package == "__init__":
        return True
    if package in ("rag", "agent") and target == "engine":
        return False  # they know the public LLM only
    return layer(target) < layer(package) or layer(target) == layer(package) in (0, TOP)


def wrong_imports(package: str, names: set[str]) -> set[str]:
    """Which of these imports a part of tinyllm may not make."""
    wrong = {name for name in names if name.split(".")[0] in ("grader", "solutions", "tests", "benchmarks")}
    for name in names:
        parts = name.split(".")
        if name == "tinyllm.LLM":  # the public door to the engine
            wrong |= {name} if layer(package) < layer("engine") else set()
        elif parts[0] == "tinyllm" and not may_import(package, parts[1] if len(parts) > 1 else "__init__"):
            wrong.add(name)
    return wrong


def test_imports_run_one_way() -> None:
    files = python_files("tinyllm")
    assert len(files) > 20
    wrong = {str(p.relative_to(ROOT)): w for p in files if (w := wrong_imports(package_of(p), set(imported(p))))}
    assert not wrong


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("kv_cache", "tinyllm.engine.llm.LLM"),
        ("kv_cache", "grader.check"),
        ("config", "tinyllm.model.qwen3"),
        ("engine", "tinyllm.cli"),
        ("model", "tinyllm.engine.sampler.sample"),
        ("kv_cache", "tinyllm.kernels.paged_decode"),
        ("attention", "tinyllm.engine.request.Request"),
        ("agent", "tinyllm.engine.scheduler.Scheduler"),
        ("rag", "tinyllm.agent.tools"),
        ("kv_cache", "tinyllm.LLM"),
        ("cli", "grader.cli.main"),
    ],
)
def test_a_wrong_import_is_seen(package: str, name: str) -> None:
    assert wrong_imports(package, {name}) == {name}


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("kv_cache", "tinyllm.parts.part"),
        ("parts", "tinyllm.paths.work_dir"),
        ("engine", "tinyllm.model.ops.Attend"),
        ("agent", "tinyllm.LLM"),
        ("serving", "tinyllm.engine.engine.LLMEngine"),
        ("cli", "tinyllm.doctor.doctor"),
        ("kv_cache", "tinyllm.kv_cache.allocator.BlockAllocator"),
        ("plots", "torch"),
    ],
)
def test_a_right_import_is_left_alone(package: str, name: str) -> None:
    assert not wrong_imports(package, {name})


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
