"""The marks as CSV. The columns below are the files' schema: names, order and meaning stay."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grader.marks.final import FinalMarks
from grader.marks.record import Record
from grader.marks.similar import Alike
from tinyllm.files import write_text

#: marks.csv: one line for each student, day and exercise.
MARKS_COLUMNS: Mapping[str, str] = {
    "day": "the notebook, for example day1_paged_kv_cache",
    "student": "the name of the submission's folder, made safe as a file name",
    "status": "graded, repaired, timed out, crashed, refused, missing or failed",
    "exercise": "the exercise's name",
    "outcome": "right, wrong, crashed, timed out, not attempted or not checked here; the status where nothing was run",
    "points": "what it earns, before any penalty for lateness; empty where grading itself failed",
    "max_points": "what a right answer earns",
    "mistakes": "the known mistakes that the answer behaves like, with blanks between them",
    "judged_points": "what the judge gave; differs from `points` only where a person has decided otherwise",
    "override_reason": "why a person has decided otherwise; empty where nobody has",
}

#: students.csv: one line for each student and day.
STUDENT_COLUMNS: Mapping[str, str] = {
    "day": "the notebook",
    "student": "as in marks.csv",
    "status": "as in marks.csv",
    "earned": "points of all exercises that count, overrides included",
    "days_late": "days begun after the due date",
    "free_days": "how many of these cost nothing",
    "late_penalty": "points taken off for the others",
    "total": "earned minus late_penalty; empty where grading itself failed",
    "max_total": "points of a perfect submission",
    "submitted": "when it was handed in (ISO 8601, UTC); empty where that does not matter",
    "notes": "what was repaired in the notebook, or why it could not be graded",
}

#: similar.csv: one line for each group of equal answers.
SIMILAR_COLUMNS: Mapping[str, str] = {
    "day": "the notebook",
    "exercise": "the exercise's name",
    "students": "who gave this answer, with blanks between them",
    "equals_reference": "yes or no",
    "size": "syntax nodes of the answer: the more, the less likely is chance",
}


#: times.csv: one line for each student and day.
TIMES_COLUMNS: Mapping[str, str] = {
    "day": "the notebook",
    "student": "as in marks.csv",
    "seconds": "how long the judge took",
}


def write_tables(folder: Path, finals: Sequence[FinalMarks]) -> None:
    """Write marks.csv and students.csv, each whole or not at all."""
    write_text(folder / "marks.csv", csv_text(MARKS_COLUMNS, marks_rows(finals)))
    write_text(folder / "students.csv", csv_text(STUDENT_COLUMNS, student_rows(finals)))


def write_times(folder: Path, marks: Sequence[Record]) -> None:
    """Write times.csv: how long each submission took, apart from the marks, which are the same every time."""
    rows = ([one.day, one.student, f"{one.seconds:.2f}"] for one in marks)
    write_text(folder / "times.csv", csv_text(TIMES_COLUMNS, rows))


def marks_rows(finals: Sequence[FinalMarks]) -> Iterable[list[Any]]:
    """The lines of marks.csv."""
    for one in finals:
        for item in one.exercises:
            unknown = not one.known and item.override is None
            yield [
                one.day,
                one.student,
                one.status,
                item.name,
                one.status if item.result is None else item.result.outcome,
                "" if unknown else number(item.points),
                number(item.max_points),
                " ".join(item.mistakes),
                "" if unknown else number(item.judged),
                item.override.reason if item.override else "",
            ]


def student_rows(finals: Sequence[FinalMarks]) -> Iterable[list[Any]]:
    """The lines of students.csv."""
    for one in finals:
        yield [
            one.day,
            one.student,
            one.status,
            number(one.earned) if one.known else "",
            one.days_late,
            one.free_days,
            number(one.penalty),
            number(one.total) if one.known else "",
            number(one.max_total),
            one.submitted.isoformat(timespec="seconds") if one.submitted else "",
            "; ".join(one.notes),
        ]


def similar_rows(alike: Sequence[Alike]) -> Iterable[list[Any]]:
    """The lines of similar.csv."""
    for one in alike:
        yield [one.day, one.exercise, " ".join(one.students), "yes" if one.reference else "no", one.size]


def csv_text(columns: Mapping[str, str], rows: Iterable[list[Any]]) -> str:
    """A table with its heading as CSV; no text in it is a formula to a spreadsheet."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([harmless(value) for value in row] for row in rows)
    return file.getvalue()


def harmless(value: Any) -> str:
    """A value's text; with an apostrophe before what a spreadsheet would compute."""
    text = str(value)
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text[:1] in "=+-@\t\r" and text else text
    return text


def number(value: float) -> str:
    """Points without needless zeros."""
    return f"{round(value, 4):g}"
