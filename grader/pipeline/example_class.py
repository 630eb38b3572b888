"""The bundled class: made-up submissions of a day, from a perfect one to one for every known mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from grader.build.course import Day
from grader.build.notebook import notebook_text, release_notebook
from grader.build.sources import BEGIN, exercise_sources
from grader.checks import find_exercise
from grader.mutants import cell_source, specimens

NOISE = "import sys; print('a warning that must cost nothing', file=sys.stderr)"


def write_class(folder: Path, day: Day, mistakes: bool = True) -> list[str]:
    """Write the submissions of a class to `folder`, one folder a student.

    Args:
        mistakes: with one student for every mutant of the day: all exercises right but the one.

    Returns:
        The students' names.
    """
    names = []
    for student, answers in answers_of_class(day, mistakes):
        path = folder / student / f"{day.name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)  # a student of two days
        path.write_text(submission(day, answers), encoding="utf-8")
        names.append(student)
    return names


def answers_of_class(day: Day, mistakes: bool = True) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Each student's name and answers, by exercise; an exercise without answer keeps its stub."""
    solutions = {name: exercise_sources(name).solution for name in day.exercises}
    yield "perfect", solutions
    yield "untouched", {}
    yield "noisy", {name: noisy(name) for name in day.exercises}
    yield "half-done", dict(list(solutions.items())[: len(solutions) // 2])
    if mistakes:
        for name in day.exercises:
            exercise = find_exercise(name)
            for mutant in specimens(exercise).mutants:
                yield f"{name}-{mutant.name}", {**solutions, name: cell_source(exercise, mutant)}


def submission(day: Day, answers: Mapping[str, str]) -> str:
    """The release notebook with some answer cells filled in, as the text of a file."""
    notebook = release_notebook(day)
    for cell in notebook.cells:
        cell.source = answers.get(cell.id, cell.source)
    return notebook_text(notebook)


def noisy(name: str) -> str:
    """A right answer that prints to standard error when its cell runs and at every call."""
    lines = [NOISE]
    for line in exercise_sources(name).marked.splitlines():
        lines.append(line.replace(BEGIN, NOISE) if line.strip() == BEGIN else line)
    future = [line for line in lines if line.startswith("from __future__")]
    return "\n".join([*future, *(line for line in lines if line not in future)])
