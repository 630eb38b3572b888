"""Grading a class: what was asked for, the sandbox, the workers and the folder; steps.py does the work.

One process does everything that is written; workers only judge.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from grader.build.course import Day, find_day, gradable_days
from grader.marks.class_file import FILE_NAME, course_of
from grader.marks.kept import keep_class_file
from grader.marks.record import Record, Status
from grader.own import own_folder
from grader.pipeline.archive import opened
from grader.pipeline.courses import write_courses
from grader.pipeline.output import output_folder
from grader.pipeline.pool import Pool, Setup
from grader.pipeline.steps import Grading, Progress, Workers
from grader.pipeline.submissions import find_submissions
from grader.sandbox.command import Level, isolation_here
from grader.sandbox.host import find_level
from grader.sandbox.limits import Limits
from tinyllm.doctor import usable_cores
from tinyllm.paths import project_root

COURSES = ".courses"  # in the output folder while it is being graded


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says.

    Attributes:
        days: names of the days to grade; empty takes what the notebooks say.
        seed: what hidden cases are drawn from; None draws a secret one, kept in the output folder.
        jobs: workers; None takes one for each core, or one with a GPU.
        ray: address of a Ray cluster; None works on this machine.
        level: the level of the sandbox; None takes the best that works here.
        unsafe: go on without a sandbox where there is none.
        limits: what a submission may use.
        class_file: what counts and when it is due (class.toml); None keeps the one that the output folder has.
    """

    days: tuple[str, ...] = ()
    seed: int | None = None
    jobs: int | None = None
    ray: str | None = None
    gpu: bool = False
    resume: bool = False
    force: bool = False
    unsafe: bool = False
    level: Level | None = None
    example: bool = False
    class_file: Path | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def workers(self) -> int:
        """How many workers to start."""
        return self.jobs or (1 if self.gpu else usable_cores())


@dataclass(frozen=True, slots=True)
class Graded:
    """A graded class: its records by day and student, where they are, and how long it took."""

    records: list[Record]
    out: Path
    level: Level
    seconds: float

    @property
    def unfinished(self) -> list[Record]:
        """Those that a person must look at: grading itself failed."""
        return [record for record in self.records if record.status is Status.FAILED]

    def summary(self) -> list[str]:
        """A few lines below the table."""
        counts = Counter(str(record.status) for record in self.records)
        kinds = ", ".join(f"{count} {name}" for name, count in counts.items())
        lines = [f"{len(self.records)} submissions in {self.seconds:.0f} s, sandbox: {self.level}. {kinds}."]
        if self.level is Level.NONE:
            lines.append("WARNING: nothing held these submissions; they ran with your own rights.")
        if self.unfinished:
            lines.append("Grading failed for some; nbgrader.log says why. `--resume` grades those again.")
        return [*lines, f"Marks, feedback and gradebook: {self.out}"]


def grade_or_example(submissions: Path | None, out: Path | None, options: Options, progress: Progress) -> Graded:
    """Grade what is at `submissions`, or without it the bundled class."""
    from grader.pipeline.example_class import write_class

    name = submissions.resolve().name.removesuffix(".zip") if submissions else "example"
    target = out or project_root() / "build" / "grading" / name
    everything = course_of(options.class_file or target / FILE_NAME)
    course = [find_day(name) for name in options.days] or everything
    if submissions is not None:
        return grade(submissions, target, course, options, progress)
    with tempfile.TemporaryDirectory(prefix="class-") as temporary:
        for day in course:
            write_class(Path(temporary), day)
        return grade(Path(temporary), target, course, replace(options, example=True), progress)


def grade(
    submissions: Path, out: Path, course: Sequence[Day], options: Options, progress: Progress | None = None
) -> Graded:
    """Grade a folder or zip of submissions into `out`, an nbgrader course with the marks beside it.

    Args:
        course: the days that may have been handed in.
        progress: called with how many are done, of how many, and what is under way.

    Raises:
        SubmissionsError: no submissions are found.
        OutputError: `out` holds something that must not be overwritten.
        SandboxError: nothing here can hold a submission, and that is not allowed.
    """
    start = perf_counter()
    # Not relative to a working directory: nbgrader, in a thread of its own, changes it for a while.
    submissions, out = submissions.absolute(), out.absolute()
    with opened(submissions) as folder:
        found = find_submissions(folder, course)
        seed = secrets.randbits(48) if options.seed is None else options.seed
        facts: dict[str, Any] = {"example": options.example, "seed": seed, "seed_given": options.seed is not None}
        with (
            output_folder(out, facts, options.resume, options.force) as facts,
            setup_of(out, options) as setup,
        ):
            keep_class_file(out, options.class_file, gradable_days())
            grading = Grading(out, course, facts["seed"], progress or nothing)
            records = grading.run(found, partial(workers, setup, options))
    return Graded(records, out, setup.level, perf_counter() - start)


def nothing(done: int, total: int, name: str) -> None:
    """A progress that nobody looks at."""


@contextmanager
def setup_of(out: Path, options: Options) -> Iterator[Setup]:
    """The courses that submissions run in, and the sandbox that works here."""
    limits = replace(options.limits, gpu=options.gpu)
    folder = out / COURSES
    shutil.rmtree(folder, ignore_errors=True)
    try:
        write_courses(folder, gradable_days())
        level = find_level(isolation_here(folder / "common", folder, limits), options.level, options.unsafe)
        yield Setup(level, folder.resolve(), limits, str(own_folder() or ""))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def workers(setup: Setup, options: Options, most: int) -> Iterator[Workers]:
    """Workers here or on a cluster; never more than `most`."""
    if options.ray:
        from grader.pipeline.ray_pool import RayPool

        with RayPool(setup, options.ray, options.jobs) as cluster:
            yield cluster
    else:
        with Pool(setup, min(options.workers, most)) as pool:
            yield pool
