"""Making an instructor's own exercises part of the course, once it is sure that they fit into it."""

from __future__ import annotations

import os
from pathlib import Path

from grader.build.course import days, own_days
from grader.checks import exercises
from grader.own import VARIABLE
from grader.usage import UsageError


def use_own(folder: Path) -> None:
    """Make a folder's exercises part of the course for this process and those that it starts.

    Raises:
        UsageError: a file of checks cannot be used, or a name is taken.
        LessonError: a lesson cannot be read, or an exercise has no checks.
    """
    os.environ[VARIABLE] = str(folder.resolve())
    exercises.cache_clear()
    taken = {name for day in days() for name in day.exercises} | {day.name.split("_")[0] for day in days()}
    for day in own_days():
        for name in [day.name.split("_")[0], *day.exercises]:
            if name in taken:
                raise UsageError(f"{day.lesson}: the course has a {name} already; take another name")
        for name, spec in day.exercises.items():
            if spec.module:
                raise UsageError(f"{day.lesson}: the solution of {name} must stand in the lesson (inline=true)")
