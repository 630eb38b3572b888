"""The class file (class.toml): which exercises count and for how much, due dates, late days, exercises of one's own."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from grader.build.course import CellKind, Day, LessonCell, gradable_days
from grader.build.own import use_own
from tinyllm.errors import TinyLLMError

FILE_NAME = "class.toml"


class ClassFileError(TinyLLMError):
    """The class file cannot be used. The message names the entry and says what may stand there."""


@dataclass(frozen=True, slots=True)
class LateRule:
    """What lateness costs.

    Attributes:
        percent_per_day: of the points earned, for each day begun after the due date.
        grace_minutes: a submission that is late by no more is on time.
        free_days: late days that cost nothing, over all the class's days together, used in the order of due dates.
    """

    percent_per_day: float = 0.0
    grace_minutes: float = 0.0
    free_days: int = 0


@dataclass(frozen=True, slots=True)
class ClassFile:
    """An instructor's decisions. The default counts every exercise as the lesson says, and has no due dates.

    Attributes:
        title: of the class, for pages and bundles.
        points: by day, the exercises that count and what each earns; a day that is missing counts whole.
        due: by day, when it must be handed in.
        extensions: by (student, day), a due date of the student's own.
        late: what lateness costs.
        own: the folder with the instructor's own exercises, if there are any.
    """

    title: str = ""
    points: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    due: Mapping[str, datetime] = field(default_factory=dict)
    extensions: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    late: LateRule = LateRule()
    own: Path | None = None

    def points_of(self, day: str, lesson_points: Mapping[str, float]) -> dict[str, float]:
        """The exercises of a day that count, with their points."""
        return dict(self.points.get(day, lesson_points))

    def due_for(self, student: str, day: str) -> datetime | None:
        """When a student must hand in a day; None when it may come at any time."""
        return self.extensions.get((student, day), self.due.get(day))

    def days_late(self, student: str, day: str, submitted: datetime | None) -> int:
        """How many days a submission is late, each day begun counted whole."""
        due = self.due_for(student, day)
        if due is None or submitted is None or submitted <= due + timedelta(minutes=self.late.grace_minutes):
            return 0
        return math.ceil((submitted - due) / timedelta(days=1))


def read_class_file(path: Path, course: Sequence[Day]) -> ClassFile:
    """Read and check a class file.

    Args:
        path: the file.
        course: the days that it may speak of.

    Raises:
        ClassFileError: it cannot be read, or an entry is none that is known here.
    """
    return _Reader(path, course).read(_parsed(path))


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ClassFileError(f"{path} cannot be read: {error}") from None


def course_of(path: Path | None) -> list[Day]:
    """The days that can be graded, with the instructor's own that a class file names; they are in use from now on.

    Raises:
        ClassFileError: the file cannot be read, or its folder is missing.
        UsageError, LessonError: a lesson of one's own cannot be used.
    """
    if path is not None and path.is_file():
        own = _Reader(path, ()).own_folder(_parsed(path))
        if own is not None:
            use_own(own)
    return gradable_days()


def copied_text(path: Path) -> str:
    """A class file's text for another folder: the folder of one's own exercises is named in full."""
    text = path.read_text(encoding="utf-8")
    own = _Reader(path, ()).own_folder(tomllib.loads(text))
    return text if own is None else re.sub(r"(?m)^own *=.*$", lambda _: f"own = {json.dumps(str(own))}", text)


def chosen(day: Day, class_file: ClassFile) -> Day:
    """The day as this class gets it: exercises that do not count keep their stub but stand there as practice."""
    wanted = class_file.points_of(day.name, {name: spec.points for name, spec in day.exercises.items()})

    def changed(cell: LessonCell) -> LessonCell:
        if cell.exercise is None or cell.kind not in (CellKind.EXERCISE, CellKind.CHECK):
            return cell
        return replace(cell, exercise=replace(cell.exercise, points=wanted.get(cell.exercise.name, 0.0)))

    return replace(day, cells=tuple(changed(cell) for cell in day.cells))


class _Reader:
    """Reads the tables of one class file; every error names the entry."""

    def __init__(self, path: Path, course: Sequence[Day]) -> None:
        self.path = path
        self.course = {day.name: day for day in course} | {day.name.split("_")[0]: day for day in course}

    def read(self, data: Mapping[str, Any]) -> ClassFile:
        """The whole file."""
        self._only("", data, ("title", "own", "late", "days"))
        days = self._table("days", data.get("days", {}))
        points: dict[str, Mapping[str, float]] = {}
        due: dict[str, datetime] = {}
        extensions: dict[tuple[str, str], datetime] = {}
        for key, entry in days.items():
            day, where = self._day(key), f"days.{key}"
            table = self._table(where, entry)
            self._only(where, table, ("exercises", "due", "extensions"))
            if "exercises" in table:
                points[day.name] = self._exercises(f"{where}.exercises", day, table["exercises"])
            if "due" in table:
                due[day.name] = self._time(f"{where}.due", table["due"])
            for student, time in self._table(f"{where}.extensions", table.get("extensions", {})).items():
                extensions[student, day.name] = self._time(f"{where}.extensions.{student}", time)
        return ClassFile(
            title=self._text("title", data.get("title", "")),
            points=points,
            due=due,
            extensions=extensions,
            late=self._late(self._table("late", data.get("late", {}))),
            own=self.own_folder(data),
        )

    def own_folder(self, data: Mapping[str, Any]) -> Path | None:
        """The folder of the instructor's own exercises, which stands beside the class file."""
        if "own" not in data:
            return None
        folder = (self.path.parent / self._text("own", data["own"])).resolve()
        if not folder.is_dir():
            self._fail("own", f"there is no folder {folder}")
        return folder

    def _late(self, table: Mapping[str, Any]) -> LateRule:
        self._only("late", table, ("percent_per_day", "grace_minutes", "free_days"))
        percent = self._number("late.percent_per_day", table.get("percent_per_day", 0), 100)
        grace = self._number("late.grace_minutes", table.get("grace_minutes", 0), 24 * 60)
        free = self._number("late.free_days", table.get("free_days", 0), 1000)
        if free != int(free):
            self._fail("late.free_days", "it must be a whole number")
        return LateRule(percent, grace, int(free))

    def _exercises(self, where: str, day: Day, value: Any) -> dict[str, float]:
        known = {name: spec.points for name, spec in day.exercises.items()}
        given = dict.fromkeys(value) if isinstance(value, list) else self._table(where, value)
        if not given:
            self._fail(where, "it names no exercise")
        for name in given:
            if name not in known:
                self._fail(where, f"{day.name} has no exercise {name!r}; it has {', '.join(known)}")
        result = {}
        for name in known:  # in the lesson's order
            if name in given:
                points = given[name]
                result[name] = known[name] if points is None else self._number(f"{where}.{name}", points, 1000)
        return result

    def _day(self, key: str) -> Day:
        if key not in self.course:
            names = ", ".join(dict.fromkeys(day.name for day in self.course.values()))
            self._fail("days", f"there is no day {key!r}; the days are {names}")
        return self.course[key]

    def _time(self, where: str, value: Any) -> datetime:
        if not isinstance(value, datetime) or value.tzinfo is None:
            self._fail(where, "write a date and time with its offset from UTC, such as 2026-12-01T23:59:00+01:00")
        return value

    def _number(self, where: str, value: Any, most: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            self._fail(where, f"it must be a number from 0 to {most:g}, and is {value!r}")
        return float(value)

    def _text(self, where: str, value: Any) -> str:
        if not isinstance(value, str):
            self._fail(where, "it must be a text in quotes")
        return value

    def _table(self, where: str, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self._fail(where, "it must be a table")
        return value

    def _only(self, where: str, table: Mapping[str, Any], allowed: Sequence[str]) -> None:
        unknown = [key for key in table if key not in allowed]
        if unknown:
            self._fail(where or "the top level", f"unknown entry {unknown[0]!r}; allowed are {', '.join(allowed)}")

    def _fail(self, where: str, words: str) -> NoReturn:
        raise ClassFileError(f"{self.path}, {where}: {words}")
