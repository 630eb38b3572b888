"""Writing the results of an output folder: tables, pages, report and gradebook, from what is kept there.

Nothing is graded again, so that a due date, a mark by hand or the points of an exercise can change afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.build.course import CellKind, Day
from grader.build.sources import marked_source, with_stubs, without_markers
from grader.marks.class_file import FILE_NAME, ClassFile, copied_text, read_class_file
from grader.marks.final import FinalMarks, finish
from grader.marks.overrides import history, in_force
from grader.marks.record import Record, read_records
from grader.marks.similar import Alike, Answers, find_alike
from grader.reporting.class_report import class_report
from grader.reporting.feedback_page import feedback_page
from grader.reporting.gradebook import update_gradebook
from grader.reporting.tables import SIMILAR_COLUMNS, csv_text, similar_rows, write_tables
from tinyllm.errors import TinyLLMError
from tinyllm.files import write_text

Progress = Callable[[int, int, str], None]


class ResultsError(TinyLLMError):
    """The folder holds no results. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has written."""

    finals: list[FinalMarks]
    alike: list[Alike]


def keep_class_file(out: Path, class_file: Path | None, course: Sequence[Day]) -> None:
    """Put a class file into an output folder, once it is sure that it can be used.

    Args:
        out: the folder.
        class_file: the file; None leaves the folder as it is.
        course: the days that it may speak of.

    Raises:
        ClassFileError: it cannot be used; the folder's own stays.
    """
    if class_file is not None:
        read_class_file(class_file, course)
        write_text(out / FILE_NAME, copied_text(class_file))


def kept_records(out: Path) -> list[Record]:
    """The records of an output folder.

    Raises:
        ResultsError: there are none, or one cannot be read.
    """
    try:
        records = read_records(out)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"a record below {out / 'results'} cannot be read ({error}); grade again") from None
    if not records:
        raise ResultsError(f"{out} holds no results; name the folder that `grader grade --out` wrote")
    return records


def export(out: Path, course: Sequence[Day], progress: Progress | None = None) -> Exported:
    """Write marks.csv, students.csv, similar.csv, the feedback pages, report.html and the gradebook's marks.

    Args:
        out: a folder of results; its class.toml, if it has one, and its overrides are applied.
        course: the days that can be graded.
        progress: called with how many pages are done, of how many, and whose is next.

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
    for number, one in enumerate(finals):
        if progress:
            progress(number, len(finals), one.student)
        key = (one.student, one.day)
        text = feedback_page(one, titles[one.day], answers[key], failed_cells(out, by_key[key]))
        write_text(out / "feedback" / one.student / one.day / f"{one.day}.html", text)
    write_tables(out, finals)
    write_text(out / "similar.csv", csv_text(SIMILAR_COLUMNS, similar_rows(alike)))
    write_text(out / "report.html", class_report(finals, titles, alike, class_file.title))
    update_gradebook(out, finals, decisions, class_file.due)
    return Exported(finals, alike)


def alike_in(out: Path, course: Sequence[Day]) -> list[Alike]:
    """The groups of equal answers in an output folder.

    Raises:
        ResultsError: `out` holds no results.
    """
    return look_alikes({(one.student, one.day): one.answers for one in kept_records(out)}, course)


def kept_class_file(out: Path, course: Sequence[Day]) -> ClassFile:
    """The class file in an output folder; without one, every exercise counts as the lesson says."""
    path = out / FILE_NAME
    return read_class_file(path, course) if path.is_file() else ClassFile()


def failed_cells(out: Path, record: Record) -> list[tuple[str, str]]:
    """Source and error of each cell of the student's own that did not run through, as intake has kept it."""
    errors = {cell.id: cell.error for cell in record.cells if cell.error and cell.id not in record.points}
    path = out / "submitted" / record.student / record.day / f"{record.day}.ipynb"
    if not errors or not path.is_file():
        return []
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [("".join(cell["source"]), errors[cell["id"]]) for cell in cells if cell["id"] in errors]


def look_alikes(answers: Answers, course: Sequence[Day]) -> list[Alike]:
    """The groups of equal answers of some days."""
    references: dict[str, str] = {}
    stubs: dict[str, str] = {}
    for day in course:
        for name, spec in day.exercises.items():
            marked = marked_source(day, spec)
            references[name], stubs[name] = without_markers(marked), with_stubs(marked)
    return find_alike(answers, references, stubs)


def title_of(day: Day) -> str:
    """The first heading of a day's lesson."""
    for cell in day.cells:
        if cell.kind is CellKind.MARKDOWN and (heading := re.search(r"^# (.+)$", cell.source, re.MULTILINE)):
            return heading[1]
    return day.name
