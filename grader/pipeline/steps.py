"""The steps of a grading: each submission goes from taken to merged, in the journal, and can go on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
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
from grader.pipeline.journal import Journal, Key, State
from grader.pipeline.pool import Event
from grader.pipeline.report import write_times
from grader.pipeline.submissions import Submission
from grader.pipeline.work import Worked, WorkItem, work_item
from grader.reporting.export import export
from tinyllm.files import replacing, write_text

Progress = Callable[[int, int, str], None]


class Workers(Protocol):
    """Whatever works on items: processes here or actors on a cluster."""

    def run(self, items: Iterable[WorkItem]) -> Iterator[Event]:
        """An event when an item is given to a worker, and one when it comes back."""


StartWorkers = Callable[[int], AbstractContextManager[Workers]]


class Grading:
    """One run over a class, from whatever state the journal says."""

    def __init__(
        self,
        out: Path,
        course: Sequence[Day],
        seed: int,
        journal: Journal,
        progress: Progress,
    ) -> None:
        self.out = out
        self.days = {day.name: day for day in course}
        self.releases: dict[str, Any] = {}
        self.seed = seed
        self.journal = journal
        self.progress = progress
        self.course = CourseFolder(out)
        self.intakes: dict[Key, Intake] = {}
        self.unmerged: list[Key] = []
        self.done = 0

    def run(self, found: Sequence[Submission], workers: StartWorkers) -> list[Record]:
        """Bring every submission to its final state and write the tables.

        `workers` starts as many of them as so many submissions need.
        """
        for submission in found:
            self.take(submission)
        keys = [(one.student, one.day) for one in found]
        waiting = [key for key in keys if not self.finished(key)]
        self.done, total = len(keys) - len(waiting), len(keys)
        used = [self.days[name] for name in dict.fromkeys(day for _, day in keys)]
        with (
            self.course.logging_to(self.out / "nbgrader.log"),
            workers(len(waiting)) as pool,
            ThreadPoolExecutor(1) as thread,
        ):
            created = thread.submit(self.course.create, used)  # it takes seconds, and workers need not wait for it
            self.unmerged = [key for key in waiting if self.journal.has(key, State.JUDGED) and not self.failed(key)]
            items = [item for key in waiting if key not in self.unmerged and (item := self.prepare(key))]
            for event in pool.run(items):
                self.progress(self.done, total, event.item.student)
                self.hear(event)
                if created.done():
                    self.merge()
            created.result()
            self.merge()
        records = sorted((self.record(key) for key in keys), key=lambda record: (record.day, record.student))
        export(self.out, gradable_days())
        write_times(self.out / "times.csv", records)
        self.progress(total, total, "done")
        return records

    def finished(self, key: Key) -> bool:
        """Whether a submission is merged with marks; one that failed is tried again."""
        return self.journal.has(key, State.MERGED) and not self.failed(key)

    def failed(self, key: Key) -> bool:
        """Whether grading a submission failed when it was last tried."""
        return bool(self.journal.fact(key, State.JUDGED, "failed", False))

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
            with replacing(self.taken_path(key)) as temporary:
                temporary.write_bytes(data)
        self.journal.append(key, State.TAKEN, **facts)

    def taken_path(self, key: Key) -> Path:
        """Where the copy of what was handed in is kept."""
        return self.out / "taken" / key[0] / f"{key[1]}.ipynb"

    def release(self, day: str) -> Any:
        """The pristine notebook of a day, made once."""
        if day not in self.releases:
            self.releases[day] = release_notebook(self.days[day])
        return self.releases[day]

    def prepare(self, key: Key) -> WorkItem | None:
        """Rebuild a submission; the work on it, or None where there is nothing to run."""
        student, day = key
        taken = self.journal.lines[key][State.TAKEN]
        if not taken["sha256"] and not taken["refused"]:
            self.finish(key, self.blank(key, Status.MISSING, ("no notebook was handed in",)))
            return None
        release = self.release(day)
        refused = taken["refused"]
        intake = refuse(release, refused) if refused else take_in(release, self.taken_path(key))
        write_text(self.notebook_path("submitted", key), notebook_text(intake.notebook))
        self.journal.append(key, State.NORMALISED)
        if intake.refused:
            self.finish(key, self.blank(key, Status.REFUSED, intake.notes), intake.notebook)
            return None
        self.intakes[key] = intake
        return work_item(intake.notebook, student, day, self.seed)

    def notebook_path(self, stage: str, key: Key) -> Path:
        """Where nbgrader keeps a student's notebook of a stage."""
        return self.out / stage / key[0] / key[1] / f"{key[1]}.ipynb"

    def hear(self, event: Event) -> None:
        """Write down what a worker has begun or finished."""
        key = (event.item.student, event.item.day)
        if event.worked is None and not event.error:
            self.journal.append(key, State.RUNNING)
            return
        intake = self.intakes.pop(key)
        if event.worked is None:
            self.course.log.error("%s could not be graded: %s", event.item.student, event.error)
            words = "grading failed; nbgrader.log in the output folder says more"
            self.finish(key, self.blank(key, Status.FAILED, (words,)), intake.notebook)
            return
        self.finish(key, self.judged(key, intake, event.worked), intake.notebook)

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

    def finish(self, key: Key, record: Record, notebook: Any = None) -> None:
        """Write a record and the notebook with its outputs."""
        if notebook is not None:
            write_text(self.notebook_path("autograded", key), notebook_text(with_outputs(notebook, record)))
        write_record(self.out, record)
        failed = record.status is Status.FAILED
        self.journal.append(key, State.JUDGED, failed=failed, seconds=round(record.seconds, 3))
        self.unmerged.append(key)

    def merge(self) -> None:
        """Write the marks of every record that waits for it to the gradebook."""
        if not self.unmerged:
            return
        with self.course.gradebook() as gradebook:
            for key in self.unmerged:
                self.course.merge(gradebook, self.record(key))
                self.journal.append(key, State.MERGED)
                self.done += 1
        self.unmerged = []

    def record(self, key: Key) -> Record:
        """A record as it was written, with the time from the journal."""
        return replace(read_record(self.out, *key), seconds=self.journal.fact(key, State.JUDGED, "seconds", 0.0))


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
