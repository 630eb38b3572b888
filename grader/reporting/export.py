"""Writing the results of an output folder: tables, pages, report and gradebook, from what is kept there.

Nothing is graded again, so that a due date, a mark by hand or the points of an exercise can change afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.build.course import CellKind, Day
from grader.marks.final import FinalMarks, finish
from grader.marks.kept import kept_class_file, kept_records
from grader.marks.overrides import history, in_force
from grader.marks.record import Record
from grader.marks.similar import Alike, look_alikes
from grader.reporting.class_report import class_report
from grader.reporting.feedback_page import feedback_page
from grader.reporting.gradebook import write_gradebook
from grader.reporting.tables import SIMILAR_COLUMNS, csv_text, similar_rows, write_tables, write_times
from tinyllm.files import write_text


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has written."""

    finals: list[FinalMarks]
    alike: list[Alike]


def export(out: Path, course: Sequence[Day]) -> Exported:
    """Write the gradebook's marks, the feedback pages, report.html and the tables; marks.csv is there when all is.

    Args:
        out: a folder of results; its class.toml, if it has one, and its overrides are applied.
        course: the days that can be graded.

    Raises:
        ResultsError: `out` holds no results.
        ClassFileError, OverrideError: those files cannot be used.
    """
    records = kept_records(out)
    class_file = kept_class_file(out, course)
    decisions = history(out)
    finals = finish(records, class_file, in_force(decisions))
    by_key = {(one.student, one.day): one for one in records}
    answers = {(one.student, one.day): one.answers for one in records}
    alike = look_alikes(answers, [day for day in course if any(one.day == day.name for one in finals)])
    titles = {day.name: title_of(day) for day in course}
    write_gradebook(out, finals, answers, decisions, class_file.due)
    for one in finals:
        key = (one.student, one.day)
        text = feedback_page(one, titles[one.day], answers[key], failed_cells(out, by_key[key]))
        write_text(out / "feedback" / one.student / one.day / f"{one.day}.html", text)
    write_times(out, records)
    write_text(out / "similar.csv", csv_text(SIMILAR_COLUMNS, similar_rows(alike)))
    write_text(out / "report.html", class_report(finals, titles, alike, class_file.title))
    write_tables(out, finals)
    return Exported(finals, alike)


def failed_cells(out: Path, record: Record) -> list[tuple[str, str]]:
    """Source and error of each cell of the student's own that did not run through, as intake has kept it."""
    errors = {cell.id: cell.error for cell in record.cells if cell.error and cell.id not in record.points}
    path = out / "submitted" / record.student / record.day / f"{record.day}.ipynb"
    if not errors or not path.is_file():
        return []
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [("".join(cell["source"]), errors[cell["id"]]) for cell in cells if cell["id"] in errors]


def title_of(day: Day) -> str:
    """The first heading of a day's lesson."""
    for cell in day.cells:
        if cell.kind is CellKind.MARKDOWN and (heading := re.search(r"^# (.+)$", cell.source, re.MULTILINE)):
            return heading[1]
    return day.name
