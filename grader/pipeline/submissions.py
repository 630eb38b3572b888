"""Finding the submissions in a folder: who handed in what, for which day."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.build.course import Day
from tinyllm.errors import TinyLLMError


class SubmissionsError(TinyLLMError):
    """The folder holds no submissions that can be found. The message shows what it should look like."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What one student handed in for one day; `path` is None where that is nothing."""

    student: str
    day: str
    path: Path | None


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
    students = student_ids([path for path in sorted(place.iterdir()) if path.is_dir() and path.name[0] not in "._"])
    found = [Submission(name, day.name, find_notebook(path, day, days)) for name, path in students for day in days]
    handed_in = {submission.day for submission in found if submission.path is not None}
    if not handed_in:
        raise SubmissionsError(
            f"no notebook was found in {place}. It should hold one folder for each student, for example "
            f"{place / 'ada' / (days[0].name + '.ipynb')}"
        )
    return [submission for submission in found if submission.day in handed_in]


def find_notebook(folder: Path, day: Day, days: Sequence[Day]) -> Path | None:
    """A student's notebook of a day: the right name first, then one that begins like it, as a download may be called.

    Links are found too, for intake to refuse in words; linked folders are not entered.
    """
    places = [path for path in (folder / day.name, folder) if path.is_dir() and not path.is_symlink()]
    for place in places:
        if (exact := place / f"{day.name}.ipynb").is_symlink() or exact.is_file():
            return exact
    notebooks = sorted(path for place in places for path in place.glob("*.ipynb") if path.name[0] != ".")
    first_word = re.compile(rf"{day.name.split('_')[0]}(?!\d)")
    alike = [path for path in notebooks if first_word.match(path.name)]
    if not alike and len(days) == 1:
        alike = notebooks
    return alike[-1] if alike else None


def student_ids(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """A name for each student that is safe as a file name, in a CSV and in nbgrader's patterns."""
    taken: set[str] = set()
    result = []
    for folder in folders:
        name = re.sub(r"[^\w.@+-]", "_", folder.name)[:100]
        name = name if re.match(r"\w", name) else f"_{name}"
        unique, number = name, 1
        while unique in taken:
            number += 1
            unique = f"{name}-{number}"
        taken.add(unique)
        result.append((unique, folder))
    return result
