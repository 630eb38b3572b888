"""The learner's verbs in a notebook: check an answer, get a hint, see the solution."""

from __future__ import annotations

import inspect
import os
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from grader.checks import exercises, find_exercise
from grader.framework import CheckResult, Exercise, Outcome
from grader.framework.rendering import show
from grader.mutants import day_folder
from grader.mutants.diagnosis import diagnosed
from grader.running import PUBLIC_SEED, LocalDriver, run
from grader.usage import CheckFailed, UsageError, unusable
from tinyllm import parts
from tinyllm.errors import PartError, WorkspaceError
from tinyllm.names import closest
from tinyllm.recorded import function_of, source_of
from tinyllm.recorded import name_of as name_in

#: What `tinyllm status` says of an answer that is not right and did not fail either.
NOT_FAILED = {
    Outcome.NOT_ATTEMPTED: "not attempted yet",
    Outcome.NOT_CHECKED: "could not be checked on this machine",
}


def check(obj: Any, seed: int = PUBLIC_SEED) -> CheckResult | None:
    """Check your answer to an exercise, show the tick list, and return it (true when everything is right).

    Another `seed` draws other cases. The result is kept beside the source it belongs to, so that
    `LLM(parts="mine")` knows what may be used.

    Raises:
        UsageError: this is no answer to an exercise; the message says what to give.
        CheckFailed: not right, while nbgrader validates the notebook.
    """
    execution = os.environ.get("NBGRADER_EXECUTION")
    if execution == "autograde":  # the hidden check of the same cell gives the marks
        return None
    exercise = exercise_of(obj)
    driver = LocalDriver(exercise, obj)
    with beside_references(exercise.name):
        result = run(exercise, seed, driver, shorten=True)
        result = diagnosed(exercise, result, driver)
    note = keep_stamp(obj, result)
    if execution == "validate" and result.outcome not in (Outcome.RIGHT, Outcome.NOT_CHECKED):
        raise CheckFailed(one_line(result))
    show(result)
    if note:
        print(note)
    return result


def exercise_of(obj: Any) -> Exercise:
    """The exercise that an object answers.

    Raises:
        UsageError: it answers none; the message says what to give in its place.
    """
    if isinstance(obj, str):
        name = closest(obj, exercises()) or "BlockAllocator"
        raise UsageError(f"check takes your object and not its name: check({name}), without quotes")
    if not isinstance(obj, type) and not inspect.isfunction(function_of(obj)):
        kind = type(obj).__name__
        if kind in exercises():
            raise UsageError(f"check takes the class and not an object made from it: check({kind})")
        raise UsageError(f"check takes a class or a function that you wrote, not {article(kind)}; {known()}")
    name = name_in(obj, exercises())
    if name == "<lambda>":
        raise UsageError(f"a lambda has no name of its own: write it as a `def` with the exercise's name; {known()}")
    exercise = find_exercise(name)
    problem = unusable(exercise.name, exercise.kind, obj)
    if problem:
        raise UsageError(problem)
    return exercise


@contextmanager
def beside_references(name: str) -> Iterator[None]:
    """Have the course's own parts in the notebook, as in grading, while the answer called `name` is driven.

    A mistake in another exercise is not held against this one.
    """
    notebook = vars(sys.modules["__main__"])
    others = {other: part for other, part in parts.references().items() if other != name and other in notebook}
    mine = {other: notebook[other] for other in others}
    notebook.update(others)
    try:
        yield
    finally:
        notebook.update(mine)


def keep_stamp(obj: Any, result: CheckResult) -> str:
    """Record the result beside the source that it belongs to, for `LLM(parts="mine")`.

    A right answer's cell is run alone first, and what it defines there is checked again: the engine will have no more
    than that. What only works beside other cells is right in grading, too, and cannot be used.

    Returns:
        What to tell the learner about it, if anything.
    """
    name = result.exercise
    if name not in parts.all_parts() or parts.is_reference(obj):
        return ""
    try:
        source = source_of(obj, name)
        problem = problem_alone(find_exercise(name), source, result.seed) if result else ""
        parts.stamp(name, source, bool(result), problem or NOT_FAILED.get(result.outcome, ""))
    except (WorkspaceError, OSError) as error:
        return f"The result could not be kept: {error}"
    return f'Right, but `LLM(parts="mine")` cannot use it: {problem}.' if problem else ""


def problem_alone(exercise: Exercise, source: str, seed: int | None) -> str:
    """Why a right answer's cell does not do alone what it does in its notebook; empty when it does."""
    try:
        alone = parts.defined_alone(exercise.name, source)
    except PartError as error:
        return str(error)
    if exercise.in_triton or seed is None:  # a kernel's cell has been checked alone
        return ""
    again = run(exercise, seed, LocalDriver(exercise, alone))
    return "" if again else f"its cell alone is no right answer: {one_line(again)}"


def hint(obj: Any, level: int = 1) -> None:
    """Print a hint for an exercise; a higher level says more.

    Raises:
        UsageError: no such exercise or level, or this copy of the course has no hints.
    """
    exercise = find_exercise(name_of(obj))
    hints = hints_of(exercise)
    if not 1 <= level <= len(hints):
        raise UsageError(f"{exercise.name} has hints 1 to {len(hints)}; there is no hint {level}")
    more = f"  (hint({exercise.name}, {level + 1}) says more)" if level < len(hints) else ""
    print(f"Hint {level} of {len(hints)}: {hints[level - 1].strip()}{more}")


def hints_of(exercise: Exercise) -> list[str]:
    """An exercise's hints, the gentlest first.

    Raises:
        UsageError: there are none in this copy of the course.
    """
    path = day_folder(exercise.name) / "hints.toml"
    entries = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    hints = entries.get(exercise.name, {}).get("hints", [])
    if not hints:
        raise UsageError(f"there are no hints for {exercise.name} in this copy of the course")
    return [str(item) for item in hints]


def solution(obj: Any) -> None:
    """Print the reference solution of an exercise.

    Raises:
        UsageError: no such exercise, or this copy of the course has no solutions.
    """
    from grader.build.sources import solved_cell

    exercise = find_exercise(name_of(obj))
    day_folder(exercise.name)
    print(solved_cell(exercise.name))


def name_of(obj: Any) -> str:
    """The exercise's name of a class, a function, an object made from a class, or the name itself."""
    if isinstance(obj, str):
        return obj
    return str(getattr(obj, "__name__", type(obj).__name__))


def one_line(result: CheckResult) -> str:
    """A result that is not right, in one line, for the Validate button."""
    first = next(item for item in result.properties if item.outcome not in (Outcome.RIGHT, Outcome.NOT_CHECKED))
    message = f": {first.message}" if first.message else ""
    return f"{result.exercise} is {result.outcome} ({first.sentence}{message})"


def known() -> str:
    """The exercises' names, for error messages."""
    return f"the exercises are {', '.join(exercises())}"


def article(noun: str) -> str:
    """The noun with "a" or "an"."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
