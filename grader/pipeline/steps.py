"""The steps of a grading: each submission is taken, rebuilt, judged and recorded. Its record says that it is done.

A grading that was cut off anywhere goes on from the records that are there. Each is written whole or not at all, after
everything else of its submission, so that what was under way is simply done again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nbformat.v4 import new_output

from grader.build.course import Day, gradable_days
from grader.build.notebook import notebook_text, release_notebook
from grader.framework import Outcome
from grader.framework.rendering import to_text
from grader.marks.record import Record, Status, read_record, write_record
from grader.pipeline.course_folder import CourseFolder
from grader.pipeline.intake import Intake, Unreadable, read_file, refuse, take_in
from grader.pipeline.pool import Event
from grader.pipeline.submissions import Submission
from grader.pipeline.work import Worked, WorkItem, work_item
from grader.reporting.export import export
from tinyllm.files import replacing, write_text

Progress = Callable[[int, int, str], None]
Key = tuple[str, str]  # student, day


class Workers(Protocol):
    """Whatever works on items: processes here or actors on a cluster."""

    def run(self, items: Iterable[WorkItem]) -> Iterator[Event]:
        """An event when an item is given to a worker, and one when it comes back."""


StartWorkers = Callable[[int], AbstractContextManager[Workers]]


@dataclass(frozen=True, slots=True)
class Taken:
    """What was handed in.

    Attributes:
        handed_in: when, as ISO 8601 with time zone; empty where there is no file.
        sha256: of the file; empty where there is none that can be read.
        refused: why it cannot be read; empty where it can.
    """

    key: Key
    handed_in: str
    sha256: str = ""
    refused: str = ""


class Grading:
    """One run over a class, from whatever records are there."""

    def __init__(self, out: Path, course: Sequence[Day], seed: int, progress: Progress) -> None:
        self.out = out
        self.days = {day.name: day for day in course}
        self.releases: dict[str, Any] = {}
        self.seed = seed
        self.progress = progress
        self.course = CourseFolder(out)
        self.under_way: dict[Key, tuple[Taken, Intake]] = {}
        self.done = 0

    def run(self, found: Sequence[Submission], workers: StartWorkers) -> list[Record]:
        """Bring every submission to its final state and write gradebook, pages and tables.

        `workers` starts as many of them as so many submissions need.
        """
        keys = [(one.student, one.day) for one in found]
        waiting = [taken for one in found if (taken := self.take(one))]
        self.done, total = len(keys) - len(waiting), len(keys)
        used = [self.days[name] for name in dict.fromkeys(day for _, day in keys)]
        with (
            self.course.logging_to(self.out / "nbgrader.log"),
            workers(len(waiting)) as pool,
            ThreadPoolExecutor(1) as thread,
        ):
            created = thread.submit(self.course.create, used)  # it takes seconds, and workers need not wait for it
            items = [item for taken in waiting if (item := self.prepare(taken))]
            for event in pool.run(items):
                self.progress(self.done, total, event.item.student)
                self.hear(event)
            created.result()
        export(self.out, gradable_days())
        self.progress(total, total, "done")
        records = (read_record(self.out, *key) for key in keys)
        return sorted(records, key=lambda record: (record.day, record.student))

    def take(self, submission: Submission) -> Taken | None:
        """Copy what was handed in; None where this very file was graded already."""
        key = (submission.student, submission.day)
        if submission.path is None:
            return Taken(key, "")
        try:
            data = read_file(submission.path)
        except Unreadable as error:
            return Taken(key, submission.handed_in, refused=str(error))
        taken = Taken(key, submission.handed_in, hashlib.sha256(data).hexdigest())
        if self.graded(taken):
            return None
        with replacing(self.taken_path(key)) as temporary:
            temporary.write_bytes(data)
        return taken

    def graded(self, taken: Taken) -> bool:
        """Whether a file has its marks; grading that failed is tried again."""
        try:
            record = read_record(self.out, *taken.key)
        except (OSError, ValueError, KeyError, TypeError):  # none, or one that cannot be read
            return False
        return record.sha256 == taken.sha256 and record.status is not Status.FAILED

    def taken_path(self, key: Key) -> Path:
        """Where the copy of what was handed in is kept."""
        return self.out / "taken" / key[0] / f"{key[1]}.ipynb"

    def release(self, day: str) -> Any:
        """The pristine notebook of a day, made once."""
        if day not in self.releases:
            self.releases[day] = release_notebook(self.days[day])
        return self.releases[day]

    def prepare(self, taken: Taken) -> WorkItem | None:
        """Rebuild a submission; the work on it, or None where there is nothing to run."""
        student, day = taken.key
        if not taken.sha256 and not taken.refused:
            self.finish(self.blank(taken, Status.MISSING, ("no notebook was handed in",)))
            return None
        release = self.release(day)
        intake = refuse(release, taken.refused) if taken.refused else take_in(release, self.taken_path(taken.key))
        write_text(self.notebook_path("submitted", taken.key), notebook_text(intake.notebook))
        if intake.refused:
            self.finish(self.blank(taken, Status.REFUSED, intake.notes), intake.notebook)
            return None
        self.under_way[taken.key] = taken, intake
        return work_item(intake.notebook, student, day, self.seed)

    def notebook_path(self, stage: str, key: Key) -> Path:
        """Where nbgrader keeps a student's notebook of a stage."""
        return self.out / stage / key[0] / key[1] / f"{key[1]}.ipynb"

    def hear(self, event: Event) -> None:
        """Write down what a worker has finished."""
        if event.worked is None and not event.error:
            return  # it was given to a worker
        taken, intake = self.under_way.pop((event.item.student, event.item.day))
        if event.worked is None:
            self.course.log.error("%s could not be graded: %s", event.item.student, event.error)
            words = "grading failed; nbgrader.log in the output folder says more"
            self.finish(self.blank(taken, Status.FAILED, (words,)), intake.notebook)
            return
        self.finish(self.judged(taken, intake, event.worked), intake.notebook)

    def blank(self, taken: Taken, status: Status, notes: tuple[str, ...]) -> Record:
        """The record of a submission of which nothing ran."""
        points = {name: (0.0, spec.points) for name, spec in self.days[taken.key[1]].exercises.items()}
        return Record(*taken.key, status, points, notes=notes, sha256=taken.sha256, handed_in=taken.handed_in)

    def judged(self, taken: Taken, intake: Intake, worked: Worked) -> Record:
        """The record of a submission that ran."""
        student, day = taken.key
        status = Status.REPAIRED if intake.notes else Status.GRADED
        if worked.left_out:
            status = Status.TIMED_OUT if Outcome.TIMED_OUT in worked.left_out.values() else Status.CRASHED
        stubs = {cell.id: cell.source for cell in self.release(day).cells}
        exercises = self.days[day].exercises
        sources = {cell.id: cell.source for cell in intake.notebook.cells}
        return Record(
            student=student,
            day=day,
            status=status,
            points={name: (worked.results[name].points, spec.points) for name, spec in exercises.items()},
            results=worked.results,
            notes=intake.notes,
            answers={name: sources[name] for name in exercises if sources[name].strip() != stubs[name].strip()},
            cells=tuple(worked.cells[cell.id] for cell in intake.notebook.cells if cell.id in worked.cells),
            sandbox=worked.sandbox,
            sha256=taken.sha256,
            handed_in=taken.handed_in,
            seconds=round(worked.seconds, 3),
        )

    def finish(self, record: Record, notebook: Any = None) -> None:
        """Write the notebook with its outputs, and then the record."""
        if notebook is not None:
            path = self.notebook_path("autograded", (record.student, record.day))
            write_text(path, notebook_text(with_outputs(notebook, record)))
        write_record(self.out, record)
        self.done += 1


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
