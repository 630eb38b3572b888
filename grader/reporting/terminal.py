"""The marks for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from grader.framework import Outcome
from grader.marks.record import Record, Status


def table(marks: Sequence[Record]) -> Table:
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


def lost(marks: Record) -> str:
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
