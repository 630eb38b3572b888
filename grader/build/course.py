"""The course as data: its days, and the cells and exercises of each day's lesson. Nothing is built here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from grader.checks import exercises
from grader.own import own_folder
from tinyllm.errors import TinyLLMError
from tinyllm.names import did_you_mean, names_of_days
from tinyllm.paths import project_root

IMPORT_LINE = re.compile(r"from (?P<module>[\w.]+) import (?P<name>\w+)")
CHECK_LINE = re.compile(r"check\((?P<name>\w+)\)")
HEAD_LINE = re.compile(r"^<!-- head: (?P<name>\w+) -->$", re.MULTILINE)

#: The options that a cell of each kind may have in its `# %%` line.
EXERCISE_OPTIONS = frozenset({"exercise", "stub", "minutes", "difficulty"})
INLINE_OPTIONS = frozenset({"exercise", "inline", "minutes", "difficulty"})


SETUP_TAG = "setup"  # marks the cells that run before any exercise, when grading too


class LessonError(TinyLLMError):
    """A lesson cannot be built. The message names the lesson, the cell and what to change."""


class CellKind(StrEnum):
    """What a lesson's cell is for."""

    MARKDOWN = "markdown"
    DEMO = "demo"
    SETUP = "setup"
    EXERCISE = "exercise"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class Spec:
    """One exercise as the lesson announces it.

    Attributes:
        number: its place among the exercises of the day, from 1.
        module: where the reference is in `tinyllm`; empty for a solution that stands in the lesson.
        stub: the functions whose bodies learners write; empty where the markers stand in the lesson.
        minutes: how long it takes about; difficulty: 1 (easy) to 5.
        points: what it earns, which is what its properties weigh; 0 is practice.
    """

    name: str
    number: int
    module: str
    stub: tuple[str, ...]
    minutes: int
    difficulty: int
    points: float

    @property
    def head(self) -> str:
        """The line above the exercise in the notebook."""
        points = f"{self.points:g} point{'s' if self.points != 1 else ''}" if self.points else "practice, no points"
        return (
            f"**Exercise {self.number}: `{self.name}`** · about {self.minutes} minutes · "
            f"difficulty {self.difficulty} of 5 · {points}"
        )


@dataclass(frozen=True, slots=True)
class LessonCell:
    """A cell of a lesson. `exercise` is set on exercise and check cells."""

    kind: CellKind
    source: str
    exercise: Spec | None = None


@dataclass(frozen=True, slots=True)
class Day:
    """One day: `name` is its folder and its notebook, for example day1_paged_kv_cache."""

    name: str
    lesson: Path
    cells: tuple[LessonCell, ...]

    @property
    def exercises(self) -> dict[str, Spec]:
        """The day's exercises by name, in order."""
        return {c.exercise.name: c.exercise for c in self.cells if c.kind is CellKind.EXERCISE and c.exercise}

    @property
    def points(self) -> float:
        """What the day earns."""
        return sum(spec.points for spec in self.exercises.values())


def days(root: Path | None = None) -> tuple[Day, ...]:
    """Every day that has a lesson, in order.

    Args:
        root: the folder with `solutions/`; None takes this checkout.

    Raises:
        LessonError: no lesson is there, or one cannot be read.
    """
    folder = (root or project_root()) / "solutions"
    lessons = sorted(folder.glob("day*/lesson.py"), key=lambda p: (day_number(p.parent.name), p.parent.name))
    if not lessons:
        raise LessonError(
            f"there is no lesson (solutions/day*/lesson.py) under {folder.parent}; "
            "the grader is used from a clone of the course's repository"
        )
    return tuple(read_day(path) for path in lessons)


def own_days() -> tuple[Day, ...]:
    """The days of an instructor's own (see grader/own.py); none where there is no such folder."""
    folder = own_folder()
    lessons = sorted((folder / "solutions").glob("day*/lesson.py")) if folder else []
    return tuple(read_day(path) for path in lessons)


def all_days(root: Path | None = None) -> tuple[Day, ...]:
    """Every day of the course, and where `root` is this checkout an instructor's own."""
    return days(root) if root else (*days(), *own_days())


def gradable_days(root: Path | None = None) -> list[Day]:
    """The days with exercises."""
    return [day for day in all_days(root) if day.exercises]


def find_day(name: str, root: Path | None = None) -> Day:
    """The day called `name`, in full or by its first word (`day1`).

    Raises:
        LessonError: there is none; the message lists those that there are.
    """
    known = all_days(root)
    for day in known:
        if name in (day.name, day.name.split("_")[0]):
            return day
    names = [day.name for day in known]
    listed = ", ".join(names) + did_you_mean(name, names_of_days(names))
    raise LessonError(f"there is no day {name!r}. The days are: {listed}")


def find_spec(name: str, root: Path | None = None) -> tuple[Day, Spec]:
    """The exercise called `name` and its day.

    Raises:
        LessonError: there is none; the message lists those that there are.
    """
    known = all_days(root)
    for day in known:
        if name in day.exercises:
            return day, day.exercises[name]
    names = [each for day in known for each in day.exercises]
    listed = ", ".join(names) or "none"
    raise LessonError(f"no exercise is called {name!r}. The exercises are: {listed}{did_you_mean(name, names)}")


def day_number(name: str) -> int:
    """The number in a day's name: 1 for day1_paged_kv_cache."""
    digits = re.match(r"day(\d+)", name)
    return int(digits[1]) if digits else 0


def read_day(lesson: Path) -> Day:
    """Read a day's lesson.

    Raises:
        LessonError: the lesson breaks a rule; the message names the cell.
    """
    return parse_lesson(lesson, lesson.read_text(encoding="utf-8"))


@lru_cache(maxsize=32)
def parse_lesson(lesson: Path, text: str) -> Day:
    """Turn a lesson's text into cells; `lesson` is where it is from.

    Raises:
        LessonError: an unknown option, an exercise without its check or head, or anything else that would make a
            notebook that is not what the author meant.
    """
    import jupytext  # here, because a learner's `check` needs none of it

    cells: list[LessonCell] = []
    specs: dict[str, Spec] = {}
    for number, cell in enumerate(jupytext.reads(text, fmt="py:percent").cells, 1):
        where = f"{lesson.parent.name}/{lesson.name}, cell {number}"
        options = {k: v for k, v in cell.metadata.items() if k != "lines_to_next_cell"}  # jupytext's own note
        cells.append(_read_cell(where, cell.cell_type, cell.source, options, specs))
    _require_one_each(lesson, specs, cells)
    return Day(lesson.parent.name, lesson, tuple(cells))


def _read_cell(
    where: str, cell_type: str, source: str, options: Mapping[str, Any], specs: dict[str, Spec]
) -> LessonCell:
    if cell_type == "markdown":
        _allow_only(where, options, frozenset())
        return LessonCell(CellKind.MARKDOWN, source)
    if "exercise" in options:
        spec = _read_exercise(where, source, options, len(specs) + 1)
        if spec.name in specs:
            raise LessonError(f"{where}: there is already an exercise {spec.name}")
        specs[spec.name] = spec
        return LessonCell(CellKind.EXERCISE, source, spec)
    if "check" in options:
        _allow_only(where, options, frozenset({"check"}))
        line = CHECK_LINE.fullmatch(source.strip())
        if line is None or line["name"] != options["check"]:
            raise LessonError(f"{where}: a check cell holds one line, check({options['check']})")
        if line["name"] not in specs:
            raise LessonError(f"{where}: checks {line['name']}, but no exercise of that name comes before it")
        return LessonCell(CellKind.CHECK, source.strip(), specs[line["name"]])
    _allow_only(where, options, frozenset({"setup"}))
    return LessonCell(CellKind.SETUP if options.get("setup") else CellKind.DEMO, source)


def _read_exercise(where: str, source: str, options: Mapping[str, Any], number: int) -> Spec:
    inline = bool(options.get("inline"))
    _allow_only(where, options, INLINE_OPTIONS if inline else EXERCISE_OPTIONS)
    name, module = str(options["exercise"]), ""
    if inline:
        if "### BEGIN SOLUTION" not in source or "### END SOLUTION" not in source:
            raise LessonError(f"{where}: an inline exercise needs ### BEGIN SOLUTION and ### END SOLUTION")
    else:
        line = IMPORT_LINE.fullmatch(source.strip())
        if line is None or line["name"] != name:
            raise LessonError(f"{where}: an exercise cell holds one line, from tinyllm.<module> import {name}")
        module = line["module"]
    stub = tuple(part.strip() for part in str(options.get("stub", "")).split(",") if part.strip())
    try:
        minutes, difficulty = int(options["minutes"]), int(options["difficulty"])
    except (KeyError, ValueError):
        raise LessonError(f"{where}: {name} needs minutes and difficulty, each a number") from None
    if minutes < 1 or not 1 <= difficulty <= 5:
        raise LessonError(f"{where}: {name} has minutes or difficulty (1 to 5) out of range")
    checks = exercises().get(name)
    if checks is None:
        raise LessonError(f"{where}: {name} has no checks; CONTRIBUTING.md says where they belong")
    return Spec(name, number, module, stub, minutes, difficulty, checks.points)


def _allow_only(where: str, options: Mapping[str, Any], allowed: frozenset[str]) -> None:
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise LessonError(
            f"{where}: unknown option {', '.join(unknown)}; allowed here: {', '.join(sorted(allowed)) or 'none'}"
        )


def _require_one_each(lesson: Path, specs: Mapping[str, Spec], cells: list[LessonCell]) -> None:
    """Every exercise has one check and one head, and no head is for nothing."""
    checked = [c.exercise.name for c in cells if c.kind is CellKind.CHECK and c.exercise]
    heads = [m["name"] for c in cells if c.kind is CellKind.MARKDOWN for m in HEAD_LINE.finditer(c.source)]
    for kind, names, line in (("check cell", checked, "check({})"), ("head", heads, "<!-- head: {} -->")):
        for name in dict.fromkeys([*specs, *names]):
            if name not in specs:
                raise LessonError(f"{lesson}: a {kind} names {name}, which is no exercise of this day")
            if names.count(name) != 1:
                wanted = line.format(name)
                raise LessonError(f"{lesson}: {name} has {names.count(name)} of the {kind} `{wanted}`; it needs one")
