"""Checking a decision by hand against the results before it is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grader.build.course import Day
from grader.marks.kept import kept_class_file, kept_records
from grader.marks.overrides import Override, OverrideError, history, in_force, record


def decide(
    out: Path,
    course: Sequence[Day],
    student: str,
    exercise: str,
    points: float | None,
    reason: str,
    withdraw: bool = False,
) -> Override:
    """Record an override of a mark that is there, or take one back.

    Args:
        out: a folder of results.
        course: the days that can be graded.
        student, exercise: whose mark of what.
        points: what the exercise earns; not with `withdraw`.
        reason: for the student.
        withdraw: back to the judge's mark.

    Raises:
        OverrideError: no such student or exercise, points out of range, no reason, or nothing to take back.
        ResultsError: `out` holds no results.
    """
    marks = kept_records(out)
    mine = [one for one in marks if one.student == student]
    if not mine:
        raise OverrideError(f"{out} has no student {student!r}; the names are those in marks.csv")
    class_file = kept_class_file(out, course)
    worth: dict[str, tuple[str, float]] = {}
    for one in mine:
        lesson = {name: possible for name, (_, possible) in one.points.items()}
        worth |= {name: (one.day, most) for name, most in class_file.points_of(one.day, lesson).items()}
    if exercise not in worth:
        raise OverrideError(f"{student} has no exercise {exercise!r} that counts; there are {', '.join(worth)}")
    day, most = worth[exercise]
    if withdraw:
        if points is not None:
            raise OverrideError("give points or --withdraw, not both")
        if (student, day, exercise) not in in_force(history(out)):
            raise OverrideError(f"nothing to take back: no mark of {student} in {exercise} was set by hand")
    elif points is None:
        raise OverrideError("how many points? Give them after the exercise, or take an override back with --withdraw")
    elif not 0 <= points <= most:
        raise OverrideError(f"{exercise} earns from 0 to {most:g} points, not {points:g}")
    return record(out, Override(student, day, exercise, points, reason))
