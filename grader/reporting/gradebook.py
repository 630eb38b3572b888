"""nbgrader's gradebook, written from the final marks, so that formgrader and its CSV show the same.

Nothing else writes marks there. Doing it again changes nothing.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.plugins import CsvExportPlugin
from sqlalchemy.exc import SAWarning

from grader.marks.final import FinalMarks
from grader.marks.overrides import Override
from grader.marks.record import Status
from tinyllm.files import write_text

COURSE_ID = "tinyllm"
FILE_NAME = "gradebook.db"


def open_gradebook(out: Path) -> Gradebook:
    """The gradebook of an output folder, as a context manager; it is made where there is none."""
    return Gradebook(f"sqlite:///{out / FILE_NAME}", COURSE_ID)


def write_gradebook(
    out: Path,
    finals: Sequence[FinalMarks],
    answers: Mapping[tuple[str, str], Collection[str]],
    decisions: Sequence[Override],
    due: Mapping[str, datetime],
) -> None:
    """Write points, overrides, penalties and times to the gradebook of an output folder, and export its CSV.

    Args:
        out: the folder; nothing is done where it has no gradebook.
        finals: everybody's marks.
        answers: by (student, day), the exercises that were answered at all.
        decisions: every override ever made: one that was taken back leaves the gradebook too.
        due: the due dates by day.
    """
    if not (out / FILE_NAME).is_file():
        return
    ever = {(one.student, one.day, one.exercise) for one in decisions}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)
        with open_gradebook(out) as gradebook:
            for day in dict.fromkeys(one.day for one in finals):
                write_day(gradebook, [one for one in finals if one.day == day], due.get(day))
            for one in finals:
                write_student(gradebook, one, answers[one.student, one.day], ever)
            gradebook.db.commit()
            export_grades(gradebook, out / "grades.csv")


def export_grades(gradebook: Gradebook, path: Path) -> None:
    """nbgrader's own export, with its lines in order: nbgrader's follow the order in which students came."""
    temporary = path.with_name(f".{path.name}.tmp")
    CsvExportPlugin(to=str(temporary), log=logging.getLogger("grader.nbgrader")).export(gradebook)
    head, *lines = temporary.read_text(encoding="utf-8").splitlines(keepends=True)
    temporary.unlink()
    write_text(path, "".join([head, *sorted(lines)]))


def write_day(gradebook: Gradebook, finals: Sequence[FinalMarks], due: datetime | None) -> None:
    """The points of a day's exercises, and when it is due; an exercise that does not count is worth 0."""
    day = finals[0].day
    points = {item.name: item.max_points for item in finals[0].exercises}
    assignment = gradebook.find_assignment(day)
    assignment.duedate = due.astimezone(UTC).replace(tzinfo=None) if due else None
    for cell in gradebook.find_notebook(day, day).grade_cells:
        cell.max_score = points.get(cell.name.removeprefix("check-"), 0.0)


def write_student(
    gradebook: Gradebook, marks: FinalMarks, answered: Collection[str], ever: set[tuple[str, str, str]]
) -> None:
    """One student's points of a day. Where grading failed there are none, and formgrader asks for them by hand."""
    gradebook.update_or_create_student(marks.student)
    if marks.status is Status.MISSING:
        return
    submission = gradebook.update_or_create_submission(marks.day, marks.student)
    if marks.submitted:
        submission.timestamp = marks.submitted.astimezone(UTC).replace(tzinfo=None)
    notebook = gradebook.find_submission_notebook(marks.day, marks.day, marks.student)
    notebook.late_submission_penalty = marks.penalty
    failed = marks.status is Status.FAILED
    by_name = {item.name: item for item in marks.exercises}
    for grade in notebook.grades:
        name = grade.name.removeprefix("check-")
        item = by_name.get(name)
        grade.auto_score = None if failed else item.judged if item else 0.0
        if item and item.override:
            grade.manual_score = item.points
        elif (marks.student, marks.day, name) in ever:
            grade.manual_score = None
        grade.needs_manual_grade = failed and grade.manual_score is None
    for comment in notebook.comments:
        comment.auto_comment = None if comment.name in answered else "No response."
