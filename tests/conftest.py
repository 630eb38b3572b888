"""What all tests share: what they need from the machine, what was not run, and where they may write.

A test marked `needs("chromium")` skips, with the doctor's words, where that is missing. Every skip is listed at the
end. With CI=true a skip fails the run: a machine that tests for others has to have everything. Excused are tests marked
`gpu`, and those of what a machine's kernel forbids (`NOT_PERMITTED` in the reason), which nobody can install.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from tinyllm.doctor import CHECKS, Finding, cuda_device
from tinyllm.part_table import PARTS

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing in the tests may load from a network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for tiny tensors threads cost more than they bring

NOT_PERMITTED = "not permitted on this machine"

IN_CI = os.environ.get("CI", "").lower() in ("1", "true")

# No deadline: a slow machine is not a wrong program. In CI the same examples every time, at home fresh ones.
settings.register_profile("course", deadline=None, derandomize=IN_CI)
settings.load_profile("course")


@cache
def finding(name: str) -> Finding:
    """What the doctor finds for one of its checks, looked up once a run."""
    return CHECKS[name]()


@cache
def has_gpu() -> bool:
    """Whether torch sees a CUDA device, looked up once a run."""
    return cuda_device() is not None


@pytest.fixture(autouse=True)
def own_work_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may touch the work/ of the person who runs it."""
    monkeypatch.setenv("TINYLLM_WORK", str(tmp_path / "work"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread of torch's: with tiny tensors faster than many, and repeatable."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


#: The folders whose tests belong to a day though they do not name it: those of the parts that are built on it.
DAY_FOLDERS = {1: ("tests/kv_cache/",), 2: ("tests/kernels/",), 3: ("tests/experts/", "tests/parallel/")}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--day", type=int, help="only the tests of one day: its parts, exercises, lesson and chapter")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --day, keep the tests that name the day or one of its exercises, and those in its folders."""
    day = config.getoption("--day")
    if day is None:
        return
    exercises = [part.name for part in PARTS if part.day == day]
    named = re.compile(rf"day_?{day}(?!\d)|\[(.*-)?({'|'.join(exercises) or '(?!)'})(-.*)?\]")
    folders = DAY_FOLDERS.get(day, ())
    kept = [item for item in items if named.search(item.nodeid) or item.nodeid.startswith(folders)]
    if not kept:
        raise pytest.UsageError(
            f"--day {day}: no test belongs to it; exercises are of the days {sorted({p.day for p in PARTS})}"
        )
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Tally(), "not-run")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            if name not in CHECKS:
                pytest.fail(f"needs({name!r}): the doctor has no such check; it has {', '.join(CHECKS)}")
            found = finding(name)
            if found.state != "ok":
                pytest.skip(f"needs {found.name} ({found.detail}); fix: {found.fix}")
    if item.get_closest_marker("gpu") and not has_gpu():
        pytest.skip("needs an NVIDIA GPU that torch can use")


class Tally:
    """Collects what was skipped, and turns a run in CI red for it."""

    def __init__(self) -> None:
        self.not_run: dict[str, str] = {}  # test or module -> reason

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail") and "gpu" not in report.keywords:
            self.not_run[report.nodeid] = reason(report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.not_run[report.nodeid] = reason(report.longrepr)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        worker = hasattr(session.config, "workerinput")  # under xdist the controller counts, for all
        failures = [why for why in self.not_run.values() if NOT_PERMITTED not in why]
        if IN_CI and failures and not worker and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.not_run:
            return
        verdict = "a failure, since CI=true" if IN_CI else "not a failure here; with CI=true it would be"
        terminalreporter.section(f"not run: {len(self.not_run)} ({verdict})", red=IN_CI, yellow=not IN_CI)
        for nodeid, why in sorted(self.not_run.items()):
            terminalreporter.line(f"{nodeid}: {why}")


def reason(longrepr: object) -> str:
    """Why a test was skipped, from its report."""
    text = longrepr[2] if isinstance(longrepr, tuple) and len(longrepr) == 3 else str(longrepr)
    return str(text).removeprefix("Skipped: ")
