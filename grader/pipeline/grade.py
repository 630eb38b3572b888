"""Grading a class: every submission goes from taken to merged, step by step in the journal, and can go on from there.

One process does everything that is written; workers only judge.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from nbformat.v4 import new_output

from grader.build.course import Day, find_day, gradable_days
from grader.build.notebook import notebook_text, release_notebook
from grader.instructor.class_file import FILE_NAME, course_of
from grader.pipeline.archive import opened
from grader.pipeline.course_folder import CourseFolder
from grader.pipeline.courses import write_courses
from grader.pipeline.intake import Intake, Unreadable, read_file, refuse, take_in
from grader.pipeline.journal import Journal, Key, State
from grader.pipeline.output import output_folder
from grader.pipeline.pool import Event, Pool, Setup
from grader.pipeline.record import Record, Status, read_record, write_record
from grader.pipeline.report import write_times
from grader.pipeline.submissions import Submission, find_submissions
from grader.pipeline.work import CELL_SECONDS, Worked, WorkItem, work_item
from grader.rendering import to_text
from grader.reporting.export import export, keep_class_file
from grader.results import Outcome
from grader.sandbox.command import Level, walls_here
from grader.sandbox.host import find_level
from grader.sandbox.limits import Limits
from tinyllm.files import write_text
from tinyllm.paths import project_root

COURSES = ".courses"  # in the output folder while it is being graded

Progress = Callable[[int, int, str], None]


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
        cell_seconds: how long a cell of a student's may take.
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
    cell_seconds: float = CELL_SECONDS

    @property
    def workers(self) -> int:
        """How many workers to start."""
        return self.jobs or (1 if self.gpu else len(os.sched_getaffinity(0)) if LINUX else os.cpu_count() or 1)


LINUX = hasattr(os, "sched_getaffinity")


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
    from grader.example_class import write_class

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
    with opened(submissions) as folder:
        found = find_submissions(folder, course)
        seed = secrets.randbits(48) if options.seed is None else options.seed
        facts: dict[str, Any] = {"example": options.example, "seed": seed, "seed_given": options.seed is not None}
        with (
            output_folder(out, facts, options.resume, options.force) as facts,
            Journal(out / "journal.jsonl") as journal,
            setup_of(out, options) as setup,
        ):
            keep_class_file(out, options.class_file, gradable_days())
            grading = Grading(out, course, facts["seed"], options, journal, setup, progress or nothing)
            records = grading.run(found)
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
        level = find_level(walls_here(folder / "common", folder, limits), options.level, options.unsafe)
        yield Setup(level, folder.resolve(), limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Grading:
    """One run over a class, from whatever state the journal says."""

    def __init__(
        self,
        out: Path,
        course: Sequence[Day],
        seed: int,
        options: Options,
        journal: Journal,
        setup: Setup,
        progress: Progress,
    ) -> None:
        self.out = out
        self.days = {day.name: day for day in course}
        self.releases: dict[str, Any] = {}
        self.seed = seed
        self.options = options
        self.journal = journal
        self.setup = setup
        self.progress = progress
        self.course = CourseFolder(out)
        self.intakes: dict[Key, Intake] = {}
        self.done = 0

    def run(self, found: Sequence[Submission]) -> list[Record]:
        """Bring every submission to its final state and write the tables."""
        for submission in found:
            self.take(submission)
        keys = [(one.student, one.day) for one in found]
        waiting = [key for key in keys if not self.finished(key)]
        self.done, total = len(keys) - len(waiting), len(keys)
        with self.course.logging_to(self.out / "nbgrader.log"), workers(self.setup, self.options, waiting) as pool:
            self.course.create([self.days[name] for name in dict.fromkeys(day for _, day in keys)])
            with self.course.gradebook() as gradebook:
                for key in waiting:
                    if self.journal.has(key, State.JUDGED):
                        self.merge(gradebook, key)
                items = [item for key in waiting if not self.finished(key) and (item := self.prepare(gradebook, key))]
                for event in pool.run(items):
                    self.progress(self.done, total, event.item.student)
                    self.hear(gradebook, event)
        records = sorted((self.record(key) for key in keys), key=lambda record: (record.day, record.student))
        export(self.out, gradable_days())
        write_times(self.out / "times.csv", records)
        self.progress(total, total, "done")
        return records

    def finished(self, key: Key) -> bool:
        """Whether a submission is merged with marks; one that failed is tried again."""
        return self.journal.has(key, State.MERGED) and not self.journal.fact(key, State.JUDGED, "failed", False)

    def take(self, submission: Submission) -> None:
        """Copy what was handed in, unless this very file was taken already."""
        key = (submission.student, submission.day)
        facts: dict[str, Any] = {"handed_in": submission.handed_in, "sha256": "", "refused": ""}
        if submission.path is not None:
            try:
                data = read_file(submission.path)
                facts["sha256"] = hashlib.sha256(data).hexdigest()
            except Unreadable as error:
                facts["refused"] = str(error)
        known = self.journal.lines.get(key, {}).get(State.TAKEN)
        if known is not None and all(known[name] == facts[name] for name in ("sha256", "refused")):
            return
        if facts["sha256"]:
            path = self.taken_path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(path.name + ".tmp")
            temporary.write_bytes(data)
            temporary.replace(path)
        self.journal.append(key, State.TAKEN, **facts)

    def taken_path(self, key: Key) -> Path:
        """Where the copy of what was handed in is kept."""
        return self.out / "taken" / key[0] / f"{key[1]}.ipynb"

    def release(self, day: str) -> Any:
        """The pristine notebook of a day, made once."""
        if day not in self.releases:
            self.releases[day] = release_notebook(self.days[day])
        return self.releases[day]

    def prepare(self, gradebook: Any, key: Key) -> WorkItem | None:
        """Rebuild a submission; the work on it, or None where there is nothing to run and it is merged already."""
        student, day = key
        taken = self.journal.lines[key][State.TAKEN]
        if not taken["sha256"] and not taken["refused"]:
            self.finish(gradebook, key, self.blank(key, Status.MISSING, ("no notebook was handed in",)))
            return None
        release = self.release(day)
        refused = taken["refused"]
        intake = refuse(release, refused) if refused else take_in(release, self.taken_path(key))
        write_text(self.notebook_path("submitted", key), notebook_text(intake.notebook))
        self.journal.append(key, State.NORMALISED)
        if intake.refused:
            self.finish(gradebook, key, self.blank(key, Status.REFUSED, intake.notes), intake.notebook)
            return None
        self.intakes[key] = intake
        return work_item(intake.notebook, student, day, self.seed, self.options.cell_seconds)

    def notebook_path(self, stage: str, key: Key) -> Path:
        """Where nbgrader keeps a student's notebook of a stage."""
        return self.out / stage / key[0] / key[1] / f"{key[1]}.ipynb"

    def hear(self, gradebook: Any, event: Event) -> None:
        """Write down what a worker has begun or finished."""
        key = (event.item.student, event.item.day)
        if event.worked is None and not event.error:
            self.journal.append(key, State.RUNNING)
            return
        intake = self.intakes.pop(key)
        if event.worked is None:
            self.course.log.error("%s could not be graded: %s", event.item.student, event.error)
            words = "grading failed; nbgrader.log in the output folder says more"
            self.finish(gradebook, key, self.blank(key, Status.FAILED, (words,)), intake.notebook)
            return
        self.finish(gradebook, key, self.judged(key, intake, event.worked), intake.notebook)

    def blank(self, key: Key, status: Status, notes: tuple[str, ...]) -> Record:
        """The record of a submission of which nothing ran."""
        taken = self.journal.lines[key][State.TAKEN]
        points = {name: (0.0, spec.points) for name, spec in self.days[key[1]].exercises.items()}
        facts = {name: taken[name] for name in ("sha256", "handed_in")}
        return Record(*key, status, points, notes=notes, **facts)

    def judged(self, key: Key, intake: Intake, worked: Worked) -> Record:
        """The record of a submission that ran."""
        taken = self.journal.lines[key][State.TAKEN]
        status = Status.REPAIRED if intake.notes else Status.GRADED
        if worked.left_out:
            status = Status.TIMED_OUT if Outcome.TIMED_OUT in worked.left_out.values() else Status.CRASHED
        stubs = {cell.id: cell.source for cell in self.release(key[1]).cells}
        exercises = self.days[key[1]].exercises
        sources = {cell.id: cell.source for cell in intake.notebook.cells}
        return Record(
            student=key[0],
            day=key[1],
            status=status,
            points={name: (worked.results[name].points, spec.points) for name, spec in exercises.items()},
            results=worked.results,
            notes=intake.notes,
            answers={name: sources[name] for name in exercises if sources[name].strip() != stubs[name].strip()},
            cells=tuple(worked.cells[cell.id] for cell in intake.notebook.cells if cell.id in worked.cells),
            sandbox=worked.sandbox,
            sha256=taken["sha256"],
            handed_in=taken["handed_in"],
            seconds=worked.seconds,
        )

    def finish(self, gradebook: Any, key: Key, record: Record, notebook: Any = None) -> None:
        """Write a record and the notebook with its outputs, and merge it."""
        if notebook is not None:
            write_text(self.notebook_path("autograded", key), notebook_text(with_outputs(notebook, record)))
        write_record(self.out, record)
        failed = record.status is Status.FAILED
        self.journal.append(key, State.JUDGED, failed=failed, seconds=round(record.seconds, 3))
        self.merge(gradebook, key)

    def merge(self, gradebook: Any, key: Key) -> None:
        """Write a record's marks to the gradebook."""
        self.course.merge(gradebook, self.record(key))
        self.journal.append(key, State.MERGED)
        self.done += 1

    def record(self, key: Key) -> Record:
        """A record as it was written, with the time from the journal."""
        return replace(read_record(self.out, *key), seconds=self.journal.fact(key, State.JUDGED, "seconds", 0.0))


@contextmanager
def workers(setup: Setup, options: Options, waiting: Sequence[Key]) -> Iterator[Any]:
    """Workers here or on a cluster; no more than there is work."""
    if options.ray:
        from grader.pipeline.ray_pool import RayPool

        with RayPool(setup, options.ray, options.jobs) as cluster:
            yield cluster
    else:
        with Pool(setup, min(options.workers, len(waiting))) as pool:
            yield pool


def with_outputs(notebook: Any, record: Record) -> Any:
    """The notebook with what its cells printed, and the tick lists without hidden inputs where its checks are."""
    runs = {run.id: run for run in record.cells}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = []
        name = cell.id.removeprefix("check-")
        if cell.id != name and name in record.results:
            cell.outputs = [new_output("stream", name="stdout", text=to_text(record.results[name].without_inputs()))]
        elif cell.id in runs:
            run = runs[cell.id]
            if run.printed:
                cell.outputs.append(new_output("stream", name="stdout", text=run.printed))
            if run.error:
                kind, _, words = run.error.partition(": ")
                cell.outputs.append(new_output("error", ename=kind, evalue=words, traceback=[run.error]))
    return notebook
