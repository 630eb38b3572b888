"""What grading found, as facts, and as CSV files and a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.table import Table

from grader.results import CheckResult, Outcome


class Status(StrEnum):
    """How a submission came through grading."""

    GRADED = "graded"
    REPAIRED = "repaired"  # graded after cells were put back or found elsewhere; the feedback says which
    TIMED_OUT = "timed out"  # a cell took too long and was left out
    CRASHED = "crashed"  # a cell ended Python and was left out
    REFUSED = "refused"  # the file could not be read
    MISSING = "missing"  # nothing was handed in
    FAILED = "failed"  # grading itself failed: no marks, grade again


@dataclass(frozen=True, slots=True)
class Marks:
    """One student's marks for one day.

    Attributes:
        points: by exercise, (earned, most possible).
        results: the judge's results by exercise; empty where nothing was run.
        notes: for the student, what was repaired or why nothing was graded.
        seconds: how long grading took.
    """

    student: str
    day: str
    status: Status
    points: dict[str, tuple[float, float]]
    results: dict[str, CheckResult]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def total(self) -> float:
        """Points earned."""
        return sum(earned for earned, _ in self.points.values())

    @property
    def max_total(self) -> float:
        """Points of a perfect submission."""
        return sum(possible for _, possible in self.points.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, without the time that grading took: the same every time."""
        return {
            "student": self.student,
            "day": self.day,
            "status": str(self.status),
            "points": {name: list(pair) for name, pair in self.points.items()},
            "results": {name: result.to_dict() for name, result in self.results.items()},
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Marks:
        """The marks that `to_dict` wrote."""
        return cls(
            student=data["student"],
            day=data["day"],
            status=Status(data["status"]),
            points={name: (float(earned), float(possible)) for name, (earned, possible) in data["points"].items()},
            results={name: CheckResult.from_dict(item) for name, item in data["results"].items()},
            notes=tuple(data["notes"]),
        )


def write_times(path: Path, marks: Sequence[Marks]) -> None:
    """Write how long each submission took: apart from the marks, which are the same every time."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["day", "student", "seconds"])
        writer.writerows([one.day, one.student, f"{one.seconds:.2f}"] for one in marks)


def table(marks: Sequence[Marks]) -> Table:
    """The marks for a terminal: totals, and for each exercise that lost points why."""
    result = Table(box=None, pad_edge=False)
    result.add_column("Student", overflow="fold", max_width=44)
    result.add_column("Points", justify="right", no_wrap=True)
    result.add_column("Status", no_wrap=True)
    result.add_column("Seconds", justify="right", no_wrap=True)
    result.add_column("Where points were lost", overflow="fold", min_width=24)
    for one in marks:
        points = "-" if one.status is Status.FAILED else f"{one.total:g}/{one.max_total:g}"
        result.add_row(one.student, points, str(one.status), f"{one.seconds:.1f}", lost(one))
    return result


def lost(marks: Marks) -> str:
    """Where points were lost, in one line: exercise, points, and the mistake's name or the outcome."""
    if not marks.results:
        return "; ".join(marks.notes)
    wrong = [(name, result) for name, result in marks.results.items() if not result]
    if wrong and all(result.outcome is Outcome.NOT_ATTEMPTED for _, result in wrong):
        return f"{len(wrong)} not attempted"
    return "; ".join(
        f"{name} {result.points:g}/{result.max_points:g} "
        + (" or ".join(item.name for item in result.diagnoses) or str(result.outcome))
        for name, result in wrong
    )
