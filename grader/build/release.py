"""Handing the release notebooks out, after a last look that nothing is in them that learners should not see."""

from __future__ import annotations

import shutil
from pathlib import Path

from grader.build.course import LessonError, days
from grader.build.drift import drift
from grader.build.notebook import release_path
from tinyllm.paths import project_root

#: What no release notebook may hold.
FORBIDDEN = ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS", "check_hidden", '"output_type"')


def hand_out(folder: Path, root: Path | None = None) -> list[Path]:
    """Copy every release notebook, and the note to AI helpers beside them, to `folder`.

    Returns:
        The copies.

    Raises:
        LessonError: a notebook is out of date, holds a solution or a hidden test, or a file would be overwritten.
    """
    stale = drift(root)
    if stale:
        raise LessonError(f"notebooks/ is out of date; run `grader build` first. {stale[0].splitlines()[0]}")
    sources = [release_path(day, root) for day in days(root)]
    for path in sources:
        text = path.read_text(encoding="utf-8")
        found = [word for word in FORBIDDEN if word in text]
        if found:
            raise LessonError(f"{path} holds {', '.join(found)} and must not be handed out")
    sources += [path for path in [(root or project_root()) / "notebooks" / "AGENTS.md"] if path.is_file()]
    copies = [folder / path.name for path in sources]
    for copy in copies:
        if copy.exists():
            raise LessonError(f"{copy} exists; give another folder, or move the old file away")
    folder.mkdir(parents=True, exist_ok=True)
    for path, copy in zip(sources, copies, strict=True):
        shutil.copyfile(path, copy)
    return copies
