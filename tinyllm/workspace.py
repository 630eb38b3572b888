"""The release notebooks and the learner's copies of them: which there are, and where."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from tinyllm.errors import UnknownNameError, WorkspaceError
from tinyllm.files import write_text
from tinyllm.names import did_you_mean, names_of_days
from tinyllm.paths import project_root, work_dir


def unused_path(folder: Path, stem: str, suffix: str) -> Path:
    """A path in `folder` named after the present second, and numbered where that name is taken."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path, number = folder / f"{stem}-{stamp}{suffix}", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{stamp}-{number}{suffix}"
    return path


def releases() -> list[Path]:
    """The release notebooks of the clone, one a day, in the course's order (day2 before day10).

    Raises:
        WorkspaceError: there is none.
    """
    folder = project_root() / "notebooks"
    found = sorted(folder.glob("day*.ipynb"), key=lambda path: (len(path.stem.split("_")[0]), path.stem))
    if not found:
        raise WorkspaceError(
            f"no release notebook in {folder}. The course is used from a clone of its repository, "
            "installed with `pip install -e .`; in a clone, `git checkout notebooks` brings them back."
        )
    return found


def find_release(day: str) -> Path:
    """The release notebook of a day, named in full or by its first word: `day1` is day1_paged_kv_cache.ipynb.

    Raises:
        UnknownNameError: no such day; the message lists the known ones.
    """
    name = day.removesuffix(".ipynb")
    known = releases()
    for path in known:
        if name in (path.stem, path.stem.split("_")[0]):
            return path
    stems = [path.stem for path in known]
    listed = ", ".join(stems) + did_you_mean(name, names_of_days(stems))
    raise UnknownNameError(f"there is no {day!r} in this course. The days are: {listed}")


def own_copy(release: Path) -> Path:
    """Where the learner's copy of a release notebook is (or will be)."""
    return work_dir() / release.name


def pristine_copy(release: Path) -> Path:
    """Where the release that the learner's copy started from is kept, so that an update can tell edits apart."""
    return work_dir() / ".releases" / release.name


def fetch_missing(notebooks: list[Path] | None = None) -> list[Path]:
    """Copy the release notebooks that the learner has no copy of yet (all of them by default).

    A file that is already there is never touched, whatever is in it. notebooks/AGENTS.md goes along: it asks
    AI helpers to tutor and not to solve.

    Returns:
        The paths of the new copies.
    """
    fresh = []
    for release in releases() if notebooks is None else notebooks:
        copy = own_copy(release)
        if not os.path.lexists(copy):
            text = release.read_text(encoding="utf-8")
            write_text(pristine_copy(release), text)
            write_text(copy, text)
            fresh.append(copy)
    guide = project_root() / "notebooks" / "AGENTS.md"
    if guide.is_file() and not os.path.lexists(own_copy(guide)):
        write_text(own_copy(guide), guide.read_text(encoding="utf-8"))
    return fresh
