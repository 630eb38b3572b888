"""Exercises of an instructor's own: a folder with lessons and checks beside the course's, laid out as the course is.

own/solutions/day10_sampling/lesson.py     a lesson, each of its solutions between the markers (`inline=true`)
own/solutions/day10_sampling/mutants/      known mistakes, as in the course; may be missing
own/checks/<exercise>.py                   the properties of one exercise, as `EXERCISE`
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from grader.usage import UsageError
from tinyllm.paths import project_root, work_dir

if TYPE_CHECKING:
    from grader.framework import Exercise

VARIABLE = "GRADER_OWN"  # names the folder; workers and the judge find it there, too
PACKAGE = "grader.checks.own"  # where its modules of checks are, in name


def own_folder() -> Path | None:
    """The folder in use: that of $GRADER_OWN, else `work/own`, where a learner has put what was handed out."""
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else work_dir() / "own"
    return folder if folder.is_dir() else None


def own_exercises() -> dict[str, Exercise]:
    """The exercises of the folder in use, by name.

    Raises:
        UsageError: a file of checks cannot be used; the message names it.
    """
    folder = own_folder()
    if folder is None:
        return {}
    found = {}
    for path in sorted((folder / "checks").glob("*.py")):
        exercise = load(path).EXERCISE
        found[exercise.name] = exercise
    return found


def load(path: Path) -> ModuleType:
    """A module of checks.

    Raises:
        UsageError: it fails, or defines no EXERCISE of the file's name.
    """
    name = f"{PACKAGE}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"{path} cannot be used: {type(error).__name__}: {error}") from error
    if getattr(getattr(module, "EXERCISE", None), "name", None) != path.stem:
        raise UsageError(f"{path} must define EXERCISE, an Exercise with the name {path.stem!r}")
    sys.modules[name] = module
    return module


def path_of_checks(module: str) -> Path:
    """The file of a module of checks, the course's or an own one."""
    folder = own_folder()
    if module.startswith(f"{PACKAGE}.") and folder is not None:
        return folder / "checks" / f"{module.removeprefix(f'{PACKAGE}.')}.py"
    return project_root().joinpath(*module.split(".")).with_suffix(".py")
