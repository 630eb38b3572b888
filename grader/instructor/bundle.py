"""The zip that an instructor hands out: release notebooks with the class's points, and no solution."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from grader.build.course import Day, LessonError, find_day, own_days
from grader.build.notebook import notebook_text, release_notebook
from grader.build.release import FORBIDDEN
from grader.build.sources import BEGIN, END, marked_source
from grader.marks.class_file import ClassFile, chosen, course_of, read_class_file
from grader.own import PACKAGE, path_of_checks
from tinyllm.files import replacing
from tinyllm.paths import project_root

README = """\
{title}

{days}

1. Install the course once: make lab, in a clone of its repository. The book's page on set-up says more.
2. Put the files of this folder into the clone's work/ folder and open them with: tinyllm lab
3. Each exercise has a cell for your answer and a check below it. Leave both cells where they are.
4. Hand in the file that `tinyllm submit` writes, for example: tinyllm submit {first}
"""
LONG_ENOUGH = 24  # letters: shorter lines of a solution stand elsewhere by chance (`return None`)


def write_bundle(
    archive: Path, class_file: Path | None = None, names: Sequence[str] | None = None, force: bool = False
) -> list[str]:
    """Write the zip, whole or not at all, once it is sure that it holds no solution.

    Args:
        archive: the zip.
        class_file: which exercises count and when they are due; None takes the lessons' points.
        names: the days; None takes all that the class file speaks of, or all that there are.
        force: replace a zip that is there.

    Returns:
        The names in it.

    Raises:
        LessonError: an unknown day, a solution in a notebook, or the zip is there already.
        ClassFileError: the class file cannot be used.
    """
    course = course_of(class_file)
    decided = read_class_file(class_file, course) if class_file else ClassFile()
    spoken_of = [day for day in course if day.name in {*decided.points, *decided.due}]
    wanted = [find_day(name) for name in names] if names else spoken_of or course
    files = contents([chosen(day, decided) for day in wanted], decided)
    for name, text in files.items():
        refuse_solutions(name, text, course)
    if archive.exists() and not force:
        raise LessonError(f"{archive} exists; give another name, or --force to replace it")
    with replacing(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in files.items():
            file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)  # equal contents, equal bytes
    return list(files)


def contents(days: Sequence[Day], class_file: ClassFile) -> dict[str, str]:
    """The files of the zip: what students read first, the notebooks, the note to AI helpers."""
    files = {"README.txt": readme(days, class_file)}
    files |= {f"{day.name}.ipynb": notebook_text(release_notebook(day)) for day in days}
    own = {name for day in own_days() if day.name in {one.name for one in days} for name in day.exercises}
    files |= {f"own/checks/{name}.py": path_of_checks(f"{PACKAGE}.{name}").read_text("utf-8") for name in sorted(own)}
    note = project_root() / "notebooks" / "AGENTS.md"
    if note.is_file():
        files["AGENTS.md"] = note.read_text(encoding="utf-8")
    return files


def readme(days: Sequence[Day], class_file: ClassFile) -> str:
    """What students read first: the days, what counts, and when it is due."""
    lines = []
    for day in days:
        counted = [spec for spec in day.exercises.values() if spec.points]
        due = class_file.due.get(day.name)
        lines.append(f"{day.name}.ipynb, {sum(spec.points for spec in counted):g} points")
        lines += [f"  due {due.isoformat(sep=' ', timespec='minutes')}"] if due else []
        lines += [f"  {spec.name}: {spec.points:g}" for spec in counted]
        practice = [spec.name for spec in day.exercises.values() if not spec.points]
        lines += [f"  practice, no points: {', '.join(practice)}"] if practice else []
    return README.format(
        title=class_file.title or "Notebooks to work on", days="\n".join(lines), first=days[0].name.split("_")[0]
    )


def refuse_solutions(name: str, text: str, course: Sequence[Day]) -> None:
    """Raise LessonError where a file of the zip holds a marker, a hidden test or a piece of a solution."""
    found = [word for word in FORBIDDEN if word in text]
    for exercise, lines in solution_lines(course).items():
        found += [f"the solution of {exercise}"] if any(piece in text for piece in lines) else []
    if found:
        raise LessonError(f"{name} holds {', '.join(found)} and must not be handed out")


def solution_lines(course: Sequence[Day]) -> Mapping[str, list[str]]:
    """By exercise, pairs of neighboring lines of its solution, as they would stand in a notebook's file."""
    result: dict[str, list[str]] = {}
    for day in course:
        for name, spec in day.exercises.items():
            blocks = re.findall(rf"{re.escape(BEGIN)}\n(.*?)\n *{re.escape(END)}", marked_source(day, spec), re.DOTALL)
            pairs = []
            for block in blocks:
                lines = [line for line in block.splitlines() if line.strip()]
                for first, second in pairwise(lines):
                    if len(first.strip()) + len(second.strip()) >= LONG_ENOUGH:
                        pairs.append(in_json(first, second))
            result[name] = pairs
    return result


def in_json(first: str, second: str) -> str:
    """Two lines as nbformat writes them."""
    return f"{json.dumps(first + chr(10))},\n    {json.dumps(second)[:-1]}"
