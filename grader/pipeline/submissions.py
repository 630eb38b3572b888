"""Finding the submissions in a folder: who handed in what, for which day."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from grader.build.course import Day
from grader.pipeline.intake import Unreadable, read_cells
from tinyllm.errors import TinyLLMError

#: What Moodle puts behind a student's name: a number and the kind of the assignment.
MOODLE = re.compile(r"_\d+_assignsubmission_\w*$")


class SubmissionsError(TinyLLMError):
    """The folder holds no submissions that can be found. The message shows what it should look like."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What one student handed in for one day; `path` is None where that is nothing.

    Attributes:
        handed_in: when, as ISO 8601 with time zone; empty where there is no file.
    """

    student: str
    day: str
    path: Path | None
    handed_in: str = ""


def find_submissions(folder: Path, days: Sequence[Day]) -> list[Submission]:
    """Every student's notebook for each day that anybody handed in.

    Args:
        folder: one folder for each student with the notebook in it, or an nbgrader course with `submitted/`.
        days: the days that can be graded.

    Raises:
        SubmissionsError: the folder is missing or holds no notebook at such a place.
    """
    if not folder.is_dir():
        raise SubmissionsError(f"there is no folder {folder}")
    inside = folder / "submitted"
    place = inside if inside.is_dir() else folder
    folders = [path for path in sorted(place.iterdir()) if path.is_dir() and path.name[0] not in "._"]
    found = []
    for student, student_folder in student_ids(folders):
        for day in days:
            path = find_notebook(student_folder, day, days)
            found.append(Submission(student, day.name, path, "" if path is None else time_of(path)))
    used = {submission.day for submission in found if submission.path is not None}
    if not used:
        raise SubmissionsError(
            f"no notebook was found in {place}. It should hold one folder for each student, for example "
            f"{place / 'ada' / (days[0].name + '.ipynb')}"
        )
    return [submission for submission in found if submission.day in used]


def find_notebook(folder: Path, day: Day, days: Sequence[Day]) -> Path | None:
    """A student's notebook of a day: the right name first, then one that begins like it, as a download may be called.

    Links are found too, for intake to refuse in words; linked folders are not entered.
    """
    places = [path for path in (folder / day.name, folder) if path.is_dir() and not path.is_symlink()]
    for place in places:
        if (exact := place / f"{day.name}.ipynb").is_symlink() or exact.is_file():
            return exact
    notebooks = sorted(path for place in places for path in place.glob("*.ipynb") if path.name[0] != ".")
    alike = [path for path in notebooks if names_day(path, day)]
    if not alike:
        others = [path for path in notebooks if not any(names_day(path, other) for other in days)]
        alike = others if len(days) == 1 else [path for path in others if day_inside(path, days) is day]
    return alike[-1] if alike else None


def names_day(path: Path, day: Day) -> bool:
    """Whether a file's name says that it is of a day."""
    return re.search(rf"(?<![^\W_]){day.name.split('_')[0]}(?!\d)", path.name) is not None


def day_inside(path: Path, days: Sequence[Day]) -> Day | None:
    """The day whose exercises a notebook has, whatever its name is."""
    try:
        cells = [cell for cell in read_cells(path) if isinstance(cell, dict)]
    except Unreadable:
        return None
    text = json.dumps([[cell.get("id"), cell.get("metadata")] for cell in cells])
    counts = [sum(f'"{name}"' in text for name in day.exercises) for day in days]
    return days[counts.index(max(counts))] if max(counts) else None


def time_of(path: Path) -> str:
    """When a notebook was handed in: what nbgrader's `collect` wrote beside it, else when the file was last changed.

    Elsewhere than in nbgrader's `submitted/`, a timestamp.txt is the student's own and is not believed.
    """
    stamp = path.with_name("timestamp.txt")
    try:
        if [folder.name for folder in path.parents[2:3]] != ["submitted"] or stamp.is_symlink():
            raise ValueError("not nbgrader's")
        words = stamp.read_text(encoding="utf-8").strip()[:100].removesuffix(" UTC")
        time = datetime.fromisoformat(words)
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
    except (OSError, ValueError):
        time = datetime.fromtimestamp(path.lstat().st_mtime, UTC).replace(microsecond=0)
    return time.isoformat()


def student_ids(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """A name for each student that is safe as a file name, in a CSV and in nbgrader's patterns."""
    taken: set[str] = set()
    result = []
    for folder in folders:
        name = re.sub(r"[^\w.@+-]", "_", MOODLE.sub("", folder.name))[:100]
        name = name if re.match(r"\w", name) else f"_{name}"
        unique, number = name, 1
        while unique in taken:
            number += 1
            unique = f"{name}-{number}"
        taken.add(unique)
        result.append((unique, folder))
    return result
