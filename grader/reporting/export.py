"""Writing the results of an output folder: tables, pages, report and gradebook, from what is kept there.

Nothing is graded again, so that a due date, a mark by hand or the points of an exercise can change afterwards.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from grader.build.course import CellKind, Day
from grader.build.sources import marked_source, with_stubs, without_markers
from grader.instructor.class_file import FILE_NAME, ClassFile, read_class_file
from grader.instructor.overrides import FILE_NAME as OVERRIDES
from grader.instructor.overrides import history, in_force
from grader.instructor.similar import Alike, Answers, find_alike
from grader.pipeline.report import Marks
from grader.reporting.class_report import class_report
from grader.reporting.feedback_page import feedback_page
from grader.reporting.final import FinalMarks, Times, finish
from grader.reporting.gradebook import update_gradebook
from grader.reporting.tables import SIMILAR_COLUMNS, csv_text, similar_rows, write_tables
from tinyllm.errors import TinyLLMError
from tinyllm.files import write_text

RESULTS = "results.json"  # judged marks and times of handing in; everything else is made from it

Progress = Callable[[int, int, str], None]


class ResultsError(TinyLLMError):
    """The folder holds no results. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has written."""

    finals: list[FinalMarks]
    alike: list[Alike]


def keep_results(out: Path, marks: Sequence[Marks], times: Times) -> None:
    """Keep judged marks in the output folder, for `export` now and later; only its owner may read them."""
    data = {
        "marks": [one.to_dict() for one in marks],
        "submitted": [[student, day, time.isoformat()] for (student, day), time in sorted(times.items())],
    }
    write_text(out / RESULTS, json.dumps(data, indent=1) + "\n")
    os.chmod(out / RESULTS, 0o600)


def keep_decisions(out: Path, earlier: Path, class_file: Path | None) -> None:
    """Bring into a new output folder what a person has decided: the class file, and the overrides so far.

    Args:
        out: the new folder.
        earlier: the folder that it will replace; it may be missing.
        class_file: the class file to use from now on; None keeps the earlier one.
    """
    sources = {FILE_NAME: class_file or earlier / FILE_NAME, OVERRIDES: earlier / OVERRIDES}
    for name, source in sources.items():
        if source.is_file():
            shutil.copyfile(source, out / name)
            os.chmod(out / name, 0o600)


def read_results(out: Path) -> tuple[list[Marks], Times]:
    """What `keep_results` kept.

    Raises:
        ResultsError: it is not there or cannot be read.
    """
    path = out / RESULTS
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        marks = [Marks.from_dict(item) for item in data["marks"]]
        times = {(student, day): datetime.fromisoformat(time) for student, day, time in data["submitted"]}
    except FileNotFoundError:
        raise ResultsError(f"{out} holds no results; name the folder that `grader grade --out` wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path} cannot be read ({error}); grade again") from None
    return marks, times


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
    marks, times = read_results(out)
    class_file = kept_class_file(out, course)
    decisions = history(out)
    finals = finish(marks, class_file, in_force(decisions), times)
    answers = graded_answers(out, finals)
    alike = look_alikes(answers, [day for day in course if any(one.day == day.name for one in finals)])
    titles = {day.name: title_of(day) for day in course}
    for number, one in enumerate(finals):
        if progress:
            progress(number, len(finals), one.student)
        text = feedback_page(one, titles[one.day], answers.get((one.student, one.day), {}))
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
    finals = finish(read_results(out)[0], ClassFile(), {}, {})
    return look_alikes(graded_answers(out, finals), course)


def kept_class_file(out: Path, course: Sequence[Day]) -> ClassFile:
    """The class file in an output folder; without one, every exercise counts as the lesson says."""
    path = out / FILE_NAME
    return read_class_file(path, course) if path.is_file() else ClassFile()


def graded_answers(out: Path, finals: Sequence[FinalMarks]) -> Answers:
    """The answers that were graded, from the notebooks that intake has rebuilt."""
    found: dict[tuple[str, str], Mapping[str, str]] = {}
    for one in finals:
        path = out / "submitted" / one.student / one.day / f"{one.day}.ipynb"
        if path.is_file():
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            found[one.student, one.day] = dict(answer for cell in cells if (answer := answer_of(cell)))
    return found


def answer_of(cell: Mapping[str, object]) -> tuple[str, str] | None:
    """The name and the source of an answer cell; None for any other."""
    metadata = cell.get("metadata")
    grading = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    if not isinstance(grading, dict) or not grading.get("solution"):
        return None
    source = cell["source"]
    return str(grading["grade_id"]), "".join(source) if isinstance(source, list) else str(source)


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


def submission_time(path: Path) -> datetime:
    """When a notebook was handed in: what nbgrader's `collect` wrote beside it, else when the file was last changed.

    Elsewhere than in nbgrader's `submitted/`, a timestamp.txt is the student's own and is not believed.
    """
    stamp = path.with_name("timestamp.txt")
    try:
        if [folder.name for folder in path.parents[2:3]] != ["submitted"] or stamp.is_symlink():
            raise ValueError("not nbgrader's")
        words = stamp.read_text(encoding="utf-8").strip()[:100]
        for form in ("%Y-%m-%d %H:%M:%S.%f %Z", "%Y-%m-%d %H:%M:%S %Z"):
            try:
                return datetime.strptime(words, form).replace(tzinfo=UTC)
            except ValueError:
                continue
        time = datetime.fromisoformat(words)
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    except (OSError, ValueError):
        return datetime.fromtimestamp(path.lstat().st_mtime, UTC).replace(microsecond=0)
