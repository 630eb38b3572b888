"""What grading a class costs: one worker and two, against `nbgrader autograde` run once for each student.

The class is the bundled one: right, half done, untouched and noisy notebooks, and one for each known mistake. Each
number of workers grades it several times; the median counts. Plain nbgrader runs the same notebooks with the same
hidden checks, in an ordinary kernel without a sandbox. Peak memory is what all processes of a run hold together,
looked at ten times a second, pages that they share counted once.

    python -m benchmarks.grading            writes benchmarks/results/grading.json, in about ten minutes
    python -m benchmarks.grading --quick    to see that it runs; prints the result, writes nothing
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from tqdm import tqdm

from benchmarks.record import write_result
from grader.build.course import Day, find_day
from grader.example_class import write_class
from grader.pipeline.record import read_records
from grader.sandbox.limits import MIB, memory_in_use
from grader.sandbox.room import descendants
from tinyllm.paths import project_root

SEED = 1
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured: students of the class, runs of each number of workers, students that plain nbgrader grades."""

    students: int = 24
    runs: int = 3
    plain_students: int = 6


QUICK = Sizes(students=2, runs=1, plain_students=1)


@dataclass(frozen=True, slots=True)
class Run:
    """One command: how long it took, and the memory that its processes held together at most."""

    seconds: float
    peak_bytes: int


def timed(command: Sequence[str], folder: Path) -> Run:
    """Run a command with one torch thread a process.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(project_root()), "COLUMNS": "120"}
    start = perf_counter()
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output) as process,
    ):
        watch = Watch(process.pid)
        watch.start()
        process.wait()
        watch.stopped.set()
        watch.join()
        output.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {output.read()[-2000:].decode(errors='replace')}")
    return Run(perf_counter() - start, watch.peak)


class Watch(threading.Thread):
    """Looks at the memory of a process and everything below it until told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.peak = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        """Keep the highest sum."""
        while not self.stopped.wait(LOOK_SECONDS):
            self.peak = max(self.peak, memory_in_use([self.pid, *descendants(self.pid)]))


def make_class(folder: Path, day: Day, students: int) -> list[str]:
    """Write the first students of the bundled class; their names."""
    names = write_class(folder, day)
    for name in names[students:]:
        shutil.rmtree(folder / name)
    return names[:students]


def grade_command(submissions: Path, out: Path, jobs: int) -> list[str]:
    """Our own command."""
    options = ["--out", str(out), "--jobs", str(jobs), "--seed", str(SEED), "--force"]
    return [sys.executable, "-m", "grader", "grade", str(submissions), *options]


def plain_course(folder: Path, out: Path) -> None:
    """A course folder for plain nbgrader, from what our own grading has left: sources and what was handed in."""
    for name in ("source", "release", "submitted"):
        shutil.copytree(out / name, folder / name)
    shutil.copyfile(out / "nbgrader_config.py", folder / "nbgrader_config.py")


def measure(sizes: Sizes) -> dict[str, Any]:
    """Grade the class with one worker and with two, then some of it with plain nbgrader."""
    day = find_day("day1")
    runs: dict[str, list[Run]] = {"one_worker": [], "two_workers": [], "nbgrader_autograde": []}
    with tempfile.TemporaryDirectory(prefix="grading-") as temporary:
        root = Path(temporary)
        names = make_class(root / "class", day, sizes.students)
        bar = tqdm(total=2 * sizes.runs + sizes.plain_students)
        for number in range(sizes.runs):
            for jobs, name in ((1, "one_worker"), (2, "two_workers")):
                runs[name].append(timed(grade_command(root / "class", root / f"out-{jobs}-{number}", jobs), root))
                bar.update()
        out = root / "out-1-0"
        plain_course(root / "plain", out)
        nbgrader = str(Path(sys.executable).with_name("nbgrader"))
        timed([nbgrader, "generate_assignment", day.name, "--force"], root / "plain")
        for name in names[:: max(1, len(names) // sizes.plain_students)][: sizes.plain_students]:
            command = [nbgrader, "autograde", day.name, "--student", name]
            runs["nbgrader_autograde"].append(timed(command, root / "plain"))
            bar.update()
        bar.close()
        sandbox = {record.sandbox for record in read_records(out)} - {""}
    return summary(runs, sizes.students, sorted(sandbox))


def summary(runs: dict[str, list[Run]], students: int, sandbox: list[str]) -> dict[str, Any]:
    """Medians and their ratios."""
    seconds = {name: median(run.seconds for run in found) for name, found in runs.items()}
    each = {name: seconds[name] / students for name in ("one_worker", "two_workers")}
    each["nbgrader_autograde"] = seconds["nbgrader_autograde"]
    return {
        "sandbox": sandbox,
        "seconds": {name: [round(run.seconds, 2) for run in found] for name, found in runs.items()},
        "seconds_for_a_notebook": {name: round(value, 3) for name, value in each.items()},
        "peak_mib": {name: round(max(run.peak_bytes for run in found) / MIB) for name, found in runs.items()},
        "two_workers_speedup": round(seconds["one_worker"] / seconds["two_workers"], 3),
        "share_of_nbgrader": round(each["one_worker"] / each["nbgrader_autograde"], 3),
    }


def main() -> None:
    """Measure, print, and write the result unless it was a quick run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes nothing")
    quick = parser.parse_args().quick
    sizes = QUICK if quick else Sizes()
    values = measure(sizes)
    print(json.dumps(values, indent=2))
    if not quick:
        settings = {"students": sizes.students, "runs": sizes.runs, "plain_students": sizes.plain_students}
        print(write_result("grading", SEED, settings, values))


if __name__ == "__main__":
    main()
