"""How the course tests its own tests: every wrong and every other right solution of one exercise, really checked."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from book.figures.style import C1, C2, C3, C4, MUTED, arrow, box, figure, label, new_diagram
from grader.checks import find_exercise
from grader.framework import Exercise, Outcome
from grader.mutants import Specimen, specimens
from grader.running import PUBLIC_SEED, LocalDriver, run

EXERCISE = "BlockAllocator"
CELL = 2.2


@figure
def mutation_matrix() -> Figure:
    """Properties across, solutions down: which property finds which mistake."""
    exercise = find_exercise(EXERCISE)
    known = specimens(exercise)
    rows = (known.mutants, known.unknown_bugs, known.alternates)
    count = sum(map(len, rows))
    left, top = 11.2, 1.5 * count + 1.6
    drawing, ax = new_diagram(left + CELL * len(exercise.properties) + 6.2, top + 2.2)
    for index in range(len(exercise.properties)):
        label(ax, left + CELL * (index + 0.5), top + 1.1, f"{index + 1}", weight="bold")
    label(ax, left - 0.5, top + 1.1, "property", ha="right", size=9)
    y = top - 1.2
    for kind, found in zip(("wrong", "wrong in a new way", "right"), rows, strict=True):
        for specimen in found:
            draw_row(ax, left, y, exercise, specimen)
            y -= 1.5
        middle = y + 0.75 * (len(found) + 1) + 0.6
        side = left + CELL * len(exercise.properties) + 0.5
        label(ax, side, middle, kind.replace(" in ", "\nin "), ha="left", size=8.5)
        y -= 0.6
    return drawing


def draw_row(ax: Axes, left: float, y: float, exercise: Exercise, specimen: Specimen) -> None:
    """A solution's outcome on every property."""
    label(ax, left - 0.5, y + 0.6, specimen.name, ha="right", size=8.5)
    result = run(exercise, PUBLIC_SEED, LocalDriver(exercise, specimen.obj))
    for index, item in enumerate(result.properties):
        right = item.outcome is Outcome.RIGHT
        color = C3 if right else C4
        x = left + CELL * index
        box(ax, x + 0.1, y, CELL - 0.2, 1.2, "" if right else "✗", color=MUTED if right else color, filled=not right)


@figure
def judging() -> Figure:
    """Who knows what: the judge draws cases and judges; beside the learner's code only the drive runs."""
    drawing, ax = new_diagram(34, 15.6)
    sides: Sequence[tuple[float, str, str, Sequence[str]]] = (
        (1, "judge", C1, ("seed", "cases", "judge(case, observations)", "mutants, oracles")),
        (20, "learner's process", C2, ("the learner's code", "drive(parts, case)", "no expected values,\nno mutants")),
    )
    for x, name, color, lines in sides:
        box(ax, x, 0.8, 13, 14, color=color)
        label(ax, x + 6.5, 13.5, name, weight="bold")
        for index, line in enumerate(lines):
            label(ax, x + 6.5, 11 - 2.6 * index, line, size=9)
    arrow(ax, (14.2, 9.4), (19.8, 9.4))
    label(ax, 17, 10.3, "case", size=9)
    arrow(ax, (19.8, 6.0), (14.2, 6.0))
    label(ax, 17, 6.9, "observations", size=8.5)
    label(ax, 17, 3.6, "plain data,\nnever objects", size=8.5)
    return drawing
