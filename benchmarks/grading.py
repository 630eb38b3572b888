"""What grading a class costs: one worker and two, against `nbgrader autograde` run once for each student.

The class is the bundled one: right, half done, untouched and noisy notebooks, and one for each known mistake; of a
day whose notebooks are graded in half a second, so that getting ready counts, and of one that runs kernels in Triton's
interpreter and takes seconds. Each number of workers grades each class several times; the median counts. Plain nbgrader
runs the same notebooks with the same hidden checks, in an ordinary kernel without a sandbox. Peak memory is what all
processes of a run hold together, looked at ten times a second, pages that they share counted once; since looking takes
time, in a run of its own.

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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

from tqdm import tqdm

from benchmarks.record import write_result
from grader.build.course import Day, find_day
from grader.marks.record import read_records
from grader.pipeline.example_class import write_class
from grader.sandbox.jail import descendants
from grader.sandbox.limits import MIB, memory_in_use
from tinyllm.paths import project_root

DAYS = ("day1", "day2")
SEED = 1
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured: students of the class, runs of each number of workers, students that plain nbgrader grades."""

    students: int = 24
    runs: int = 3
    plain_students: int = 6


QUICK = Sizes(students=2, runs=1, plain_students=1)


def run(command: Sequence[str], folder: Path, peaks: list[int] | None = None) -> float:
    """Run a command with one torch thread a process.

    Args:
        peaks: where its peak memory in bytes is added; None does not look.

    Returns:
        How many seconds it took.

    Raises:
        RuntimeError: it failed.
    """
    tools = str(Path(sys.executable).parent)  # nbgrader calls alembic by name
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((tools, os.environ.get("PATH", os.defpath))),
        "PYTHONPATH": str(project_root()),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }
    start = perf_counter()
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output) as process,
    ):
        if peaks is None:
            process.wait()
        else:
            peaks.append(peak_memory(process))
        output.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {output.read()[-2000:].decode(errors='replace')}")
    return perf_counter() - start


def peak_memory(process: subprocess.Popen[bytes]) -> int:
    """The most bytes that a process and everything below it hold together until it ends."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory_in_use([process.pid, *descendants(process.pid)]))
        sleep(LOOK_SECONDS)
    return peak


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


def measure(day: Day, sizes: Sizes) -> dict[str, Any]:
    """Grade a day's class with one worker and with two, then some of it with plain nbgrader."""
    seconds: dict[str, list[float]] = {"one_worker": [], "two_workers": [], "nbgrader_autograde": []}
    peaks: dict[str, list[int]] = {name: [] for name in seconds}
    with tempfile.TemporaryDirectory(prefix="grading-") as temporary:
        root = Path(temporary)
        names = make_class(root / "class", day, sizes.students)
        bar = tqdm(total=2 * (sizes.runs + 1) + sizes.plain_students + 1, desc=day.name)
        for number in range(sizes.runs + 1):
            for jobs, name in ((1, "one_worker"), (2, "two_workers")):
                command = grade_command(root / "class", root / f"out-{jobs}", jobs)
                if number == 0:
                    run(command, root, peaks[name])
                else:
                    seconds[name].append(run(command, root))
                bar.update()
        plain_course(root / "plain", root / "out-1")
        nbgrader = str(Path(sys.executable).with_name("nbgrader"))
        run([nbgrader, "generate_assignment", day.name, "--force"], root / "plain")
        some = names[:: max(1, len(names) // sizes.plain_students)][: sizes.plain_students]
        for number, name in enumerate([some[0], *some]):
            command = [nbgrader, "autograde", day.name, "--student", name, "--force"]
            if number == 0:
                run(command, root / "plain", peaks["nbgrader_autograde"])
            else:
                seconds["nbgrader_autograde"].append(run(command, root / "plain"))
            bar.update()
        bar.close()
        sandbox = {record.sandbox for record in read_records(root / "out-1")} - {""}
    return summary(seconds, peaks, sizes.students, sorted(sandbox))


def summary(
    seconds: dict[str, list[float]], peaks: dict[str, list[int]], students: int, sandbox: list[str]
) -> dict[str, Any]:
    """Medians and their ratios."""
    middle = {name: median(found) for name, found in seconds.items()}
    each = {name: middle[name] / students for name in ("one_worker", "two_workers")}
    each["nbgrader_autograde"] = middle["nbgrader_autograde"]
    return {
        "sandbox": sandbox,
        "seconds": {name: [round(value, 2) for value in found] for name, found in seconds.items()},
        "seconds_for_a_notebook": {name: round(value, 3) for name, value in each.items()},
        "peak_mib": {name: round(max(found) / MIB) for name, found in peaks.items()},
        "two_workers_speedup": round(middle["one_worker"] / middle["two_workers"], 3),
        "share_of_nbgrader": round(each["one_worker"] / each["nbgrader_autograde"], 3),
    }


def main() -> None:
    """Measure, print, and write the result unless it was a quick run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="see that it runs; writes nothing")
    quick = parser.parse_args().quick
    sizes = QUICK if quick else Sizes()
    values = {name: measure(find_day(name), sizes) for name in DAYS}
    print(json.dumps(values, indent=2))
    if not quick:
        settings = {"students": sizes.students, "runs": sizes.runs, "plain_students": sizes.plain_students}
        print(write_result("grading", SEED, settings, values))


if __name__ == "__main__":
    main()
