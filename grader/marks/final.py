"""From judged points to marks: the class's points, overrides by hand, and what lateness costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from grader.framework import CheckResult
from grader.marks.class_file import ClassFile
from grader.marks.overrides import Key, Override
from grader.marks.record import Record, Status


@dataclass(frozen=True, slots=True)
class FinalExercise:
    """One exercise of one student.

    Attributes:
        judged: the points that the judge gave, on the class's scale.
        max_points: what the exercise earns at most in this class.
        result: what the judge found; None where nothing was run.
        override: the decision by hand that counts in place of `judged`, if there is one.
    """

    name: str
    judged: float
    max_points: float
    result: CheckResult | None = None
    override: Override | None = None

    @property
    def points(self) -> float:
        """Points earned."""
        given = self.override.points if self.override else None
        return self.judged if given is None else given

    @property
    def mistakes(self) -> tuple[str, ...]:
        """The names of the known mistakes that the answer behaves like."""
        return () if self.result is None else tuple(item.name for item in self.result.diagnoses)


@dataclass(frozen=True, slots=True)
class FinalMarks:
    """One student's marks for one day, after everything.

    Attributes:
        days_late: days begun after the due date.
        free_days: how many of them cost nothing.
        penalty: points taken off for the others.
    """

    student: str
    day: str
    status: Status
    exercises: tuple[FinalExercise, ...]
    notes: tuple[str, ...] = ()
    submitted: datetime | None = None
    days_late: int = 0
    free_days: int = 0
    penalty: float = 0.0

    @property
    def known(self) -> bool:
        """Whether there are marks: where grading itself failed there are none, unless by hand."""
        return self.status is not Status.FAILED or all(item.override for item in self.exercises)

    @property
    def earned(self) -> float:
        """Points of the exercises, before the penalty."""
        return sum(item.points for item in self.exercises)

    @property
    def total(self) -> float:
        """Points that count."""
        return self.earned - self.penalty

    @property
    def max_total(self) -> float:
        """Points of a perfect submission."""
        return sum(item.max_points for item in self.exercises)


def finish(marks: Sequence[Record], class_file: ClassFile, overrides: Mapping[Key, Override]) -> list[FinalMarks]:
    """Apply the class's decisions to judged marks; the order stays.

    Free late days are spent in the order of the class's due dates.
    """
    left = {one.student: class_file.late.free_days for one in marks}
    done: dict[tuple[str, str], FinalMarks] = {}
    for one in sorted(marks, key=lambda item: (due_order(class_file, item.day), item.day)):
        exercises = tuple(finished_exercises(one, class_file, overrides))
        submitted = datetime.fromisoformat(one.handed_in) if one.handed_in else None
        late = class_file.days_late(one.student, one.day, submitted)
        free = min(late, left[one.student])
        left[one.student] -= free
        share = min(1.0, (late - free) * class_file.late.percent_per_day / 100)
        penalty = round(share * sum(item.points for item in exercises), 2)
        done[one.student, one.day] = FinalMarks(
            one.student, one.day, one.status, exercises, one.notes, submitted, late, free, penalty
        )
    return [done[one.student, one.day] for one in marks]


def finished_exercises(
    marks: Record, class_file: ClassFile, overrides: Mapping[Key, Override]
) -> Sequence[FinalExercise]:
    """The exercises of one submission that count, on the class's scale."""
    lesson = {name: possible for name, (_, possible) in marks.points.items()}
    return [
        FinalExercise(
            name=name,
            judged=round(marks.points[name][0] * points / lesson[name], 2) if lesson[name] else 0.0,
            max_points=points,
            result=marks.results.get(name),
            override=overrides.get((marks.student, marks.day, name)),
        )
        for name, points in class_file.points_of(marks.day, lesson).items()
        if name in lesson
    ]


def due_order(class_file: ClassFile, day: str) -> float:
    """When a day is due, as a number to sort by; a day without a due date comes last."""
    due = class_file.due.get(day)
    return due.timestamp() if due else float("inf")
