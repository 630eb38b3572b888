"""What the tests of grading share: small classes, and what lies in an output folder."""

from __future__ import annotations

import csv
import sqlite3
import warnings
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

from grader.build.course import Day, find_day
from grader.build.notebook import notebook_text
from grader.checks import find_exercise
from grader.framework import CheckResult
from grader.marks.record import Record
from grader.mutants import specimens
from grader.mutants.diagnosis import diagnosed
from grader.pipeline.example_class import submission
from grader.pipeline.grade import Graded, Options, grade
from grader.running import LocalDriver, run
from grader.sandbox.command import Level

SEED = 11
DAY = find_day("day1")
ENDS_PYTHON = "import os\nos._exit(3)"
NEVER_ENDS = """
import signal

for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
while True:
    pass
"""

ROWS = """
SELECT student.id, assignment.name, base_cell.name, grade.auto_score, grade.manual_score, grade.needs_manual_grade,
       grade_cells.max_score, submitted_assignment.timestamp
FROM grade JOIN base_cell ON base_cell.id = grade.cell_id JOIN grade_cells ON grade_cells.id = base_cell.id
JOIN submitted_notebook ON submitted_notebook.id = grade.notebook_id
JOIN submitted_assignment ON submitted_assignment.id = submitted_notebook.assignment_id
JOIN assignment ON assignment.id = submitted_assignment.assignment_id
JOIN student ON student.id = submitted_assignment.student_id ORDER BY 1, 2, 3
"""


def options(**changes: object) -> Options:
    """As most tests grade: where nothing can hold a submission, without a sandbox, and `said_aloud` tells."""
    return Options(**{"seed": SEED, "jobs": 2, "unsafe": True, **changes})


def said_aloud(graded: Graded) -> Graded:
    """Warn where this machine has no sandbox: then its isolation was not part of the test."""
    if graded.level is not Level.BUBBLEWRAP:
        warnings.warn(f"bubblewrap does not work here: graded at level {graded.level}", stacklevel=2)
    return graded


def hand_in(folder: Path, texts: dict[str, str]) -> Path:
    """Write each student's notebook."""
    for name, text in texts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / f"{DAY.name}.ipynb").write_text(text, encoding="utf-8")
    return folder


def records_of(folder: Path, day: Day, answers: Mapping[str, Mapping[str, str]]) -> dict[str, Record]:
    """The marks of a class of one day, by student; the answers are each student's cells by exercise."""
    for student, cells in answers.items():
        path = folder / "class" / student / f"{day.name}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(submission(day, dict(cells)), encoding="utf-8")
    graded = said_aloud(grade(folder / "class", folder / "out", [day], options()))
    return {record.student: record for record in graded.records}


def with_own_cell(text: str, before: str, source: str) -> str:
    """A notebook with a cell of the student's own before another cell."""
    notebook = nbformat.reads(text, 4)
    where = [cell.id for cell in notebook.cells].index(before)
    notebook.cells.insert(where, new_code_cell(source))
    return notebook_text(notebook)


def expected(exercise_name: str, mutant_name: str, seed: int = SEED) -> CheckResult:
    """What a mutant's marks must be: its own result in this process, on the same hidden cases."""
    exercise = find_exercise(exercise_name)
    mutant = next(one for one in specimens(exercise).mutants if one.name == mutant_name)
    driver = LocalDriver(exercise, mutant.obj)
    return diagnosed(exercise, run(exercise, seed, driver), driver)


def gradebook_rows(out: Path) -> list[tuple[object, ...]]:
    """Every mark in the gradebook, without the random ids."""
    with sqlite3.connect(out / "gradebook.db") as connection:
        return connection.execute(ROWS).fetchall() + connection.execute("SELECT id FROM student ORDER BY 1").fetchall()


def marks_rows(out: Path) -> list[dict[str, str]]:
    """The lines of marks.csv."""
    with (out / "marks.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def points_of(record: Record) -> dict[str, float]:
    """What each exercise earned."""
    return {name: earned for name, (earned, _) in record.points.items()}
