"""Grading a class: intake, one judged run for each submission, then feedback, exports and the table's facts."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from grader.build.course import Day
from grader.build.notebook import release_notebook
from grader.pipeline.course_folder import CourseFolder
from grader.pipeline.intake import take_in
from grader.pipeline.judged_run import JudgedRun
from grader.pipeline.report import Marks, Status, write_times
from grader.pipeline.submissions import Submission, find_submissions
from grader.reporting.export import export, keep_decisions, keep_results, submission_time
from grader.results import Outcome
from tinyllm.errors import TinyLLMError

MARKER = "grading.json"  # tells that an output folder is ours, and what it is of

Progress = Callable[[int, int, str], None]


class OutputError(TinyLLMError):
    """The output folder cannot be used. The message says what to do."""


def grade(
    submissions: Path,
    out: Path,
    course: Sequence[Day],
    seed: int | None = None,
    force: bool = False,
    example: bool = False,
    progress: Progress | None = None,
    class_file: Path | None = None,
) -> list[Marks]:
    """Grade a folder of submissions into `out`, an nbgrader course with the marks beside it.

    `out` appears when everything is done, not before.

    Args:
        seed: what hidden cases are drawn from; None draws a secret one, kept in the output folder.
        force: replace an earlier grading at `out`.
        example: the submissions are the bundled class, whose results anybody may replace.
        progress: called with how many are done, of how many, and what is under way.
        class_file: which exercises count, due dates and so on; None keeps that of an earlier grading at `out`.

    Raises:
        SubmissionsError: no submissions are found.
        OutputError: `out` holds something that must not be overwritten.
    """
    found = find_submissions(submissions, course)
    seed = secrets.randbits(48) if seed is None else seed
    with fresh_folder(out, force, example) as folder, tempfile.TemporaryDirectory(prefix="grading-") as scratch:
        nbgrader = CourseFolder(folder)
        with nbgrader.logging_to(folder / "nbgrader.log"):
            used = [day for day in course if any(one.day == day.name for one in found)]
            nbgrader.create(used)
            marks = []
            for number, submission in enumerate(found):
                if progress:
                    progress(number, len(found), submission.student)
                day = next(day for day in used if day.name == submission.day)
                marks.append(grade_one(nbgrader, submission, day, seed, Path(scratch) / str(number)))
                shutil.rmtree(Path(scratch) / str(number), ignore_errors=True)
        times = {(one.student, one.day): submission_time(one.path) for one in found if one.path}
        keep_results(folder, marks, times)
        keep_decisions(folder, out, class_file)
        export(folder, used)
        write_times(folder / "times.csv", marks)
        write_privately(folder / MARKER, json.dumps({"made_by": "grader grade", "example": example, "seed": seed}))
    if progress:
        progress(len(found), len(found), "done")
    return marks


def grade_one(course: CourseFolder, submission: Submission, day: Day, seed: int, scratch: Path) -> Marks:
    """Take in, run, score and give feedback on one submission."""
    start = perf_counter()
    student = submission.student
    nothing = {name: (0.0, spec.points) for name, spec in day.exercises.items()}
    if submission.path is None:
        course.add_student(student)
        return Marks(student, day.name, Status.MISSING, nothing, {}, ("no notebook was handed in",))
    intake = take_in(release_notebook(day), submission.path)
    run = JudgedRun(seed, course.root / "judged" / student / day.name, scratch)
    try:
        course.submit(student, day.name, intake.notebook)
        course.autograde(student, day.name, run)
    except Exception as error:  # nbgrader's, the judge's or the disk's: told for this student, and the class goes on
        course.log.exception("%s could not be graded", student)
        words = f"grading failed ({type(error).__name__}); nbgrader.log in the output folder says more"
        return Marks(student, day.name, Status.FAILED, nothing, {}, (words,), perf_counter() - start)
    status = Status.GRADED
    if intake.refused:
        status = Status.REFUSED
    elif run.left_out:
        status = Status.TIMED_OUT if Outcome.TIMED_OUT in run.left_out.values() else Status.CRASHED
    elif intake.notes:
        status = Status.REPAIRED
    points = {name: (run.results[name].points, spec.points) for name, spec in day.exercises.items()}
    return Marks(student, day.name, status, points, run.results, intake.notes, perf_counter() - start)


@contextmanager
def fresh_folder(out: Path, force: bool, example: bool) -> Iterator[Path]:
    """A folder beside `out` to work in; it takes the place of `out` when all went well and is removed otherwise.

    Raises:
        OutputError: `out` is there and is not an earlier grading, or is one of real submissions and `force` is off.
    """
    out = out.resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        earlier = read_marker(out)
        if earlier is None:
            raise OutputError(f"{out} is not empty and holds no earlier grading; give another folder with --out")
        if not force and not (example and earlier.get("example")):
            raise OutputError(
                f"{out} holds an earlier grading; give another folder with --out, or --force to replace it"
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield folder
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
            os.replace(out, old / "was")
            os.replace(folder, out)
            shutil.rmtree(old)
        else:
            os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_marker(out: Path) -> dict[str, object] | None:
    """What an output folder says that it is; None when it is not one of ours."""
    try:
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) and marker.get("made_by") == "grader grade" else None


def write_privately(path: Path, text: str) -> None:
    """Write a file that only its owner may read: the seed is in it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
