"""The learner's verbs in a notebook: check an answer, get a hint, see the solution."""

from __future__ import annotations

import inspect
import os
import tomllib
from typing import Any

from grader.checks import exercises, find_exercise
from grader.diagnosis import diagnosed
from grader.framework import Exercise
from grader.mutants import day_folder
from grader.rendering import show
from grader.results import CheckResult, Outcome
from grader.running import PUBLIC_SEED, LocalDriver, run
from grader.usage import CheckFailed, UsageError
from tinyllm import parts
from tinyllm.errors import WorkspaceError
from tinyllm.names import closest

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
    result = diagnosed(exercise, run(exercise, seed, LocalDriver(exercise, obj)))
    keep_stamp(obj, result)
    if execution == "validate" and result.outcome not in (Outcome.RIGHT, Outcome.NOT_CHECKED):
        raise CheckFailed(one_line(result))
    show(result)
    return result


def exercise_of(obj: Any) -> Exercise:
    """The exercise that an object answers.

    Raises:
        UsageError: it answers none; the message says what to give in its place.
    """
    if isinstance(obj, str):
        name = closest(obj, exercises()) or "BlockAllocator"
        raise UsageError(f"check takes your object and not its name: check({name}), without quotes")
    if not isinstance(obj, type) and not inspect.isfunction(obj):
        kind = type(obj).__name__
        if kind in exercises():
            raise UsageError(f"check takes the class and not an object made from it: check({kind})")
        raise UsageError(f"check takes a class or a function that you wrote, not {article(kind)}; {known()}")
    exercise = find_exercise(obj.__name__)
    if (exercise.kind == "class") is not isinstance(obj, type):
        got = "class" if isinstance(obj, type) else "function"
        wanted = "class" if exercise.kind == "class" else "function"
        raise UsageError(f"{exercise.name} must be a {wanted}, and yours is a {got}: start from the cell's stub")
    return exercise


def keep_stamp(obj: Any, result: CheckResult) -> None:
    """Record the result beside the source that it belongs to, for `LLM(parts="mine")`."""
    if result.exercise not in parts.all_parts() or parts.is_reference(obj):
        return
    try:
        parts.stamp(result.exercise, parts.source_of(obj), bool(result), NOT_FAILED.get(result.outcome, ""))
    except (WorkspaceError, OSError) as error:
        print(f"The result could not be kept: {error}")


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
    path = day_folder(exercise.day) / "hints.toml"
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
    from grader.build.course import find_spec
    from grader.build.sources import marked_source, without_markers

    exercise = find_exercise(name_of(obj))
    day_folder(exercise.day)
    print(without_markers(marked_source(*find_spec(exercise.name))))


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
