"""Spot the bug: a learner is shown a wrong solution and looks for the smallest use of it that goes wrong."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from grader.build.sources import exercise_sources
from grader.checks import exercises, find_exercise
from grader.framework import Case, Exercise, Observations, Property, outcome_of
from grader.framework.words import short, two_texts
from grader.learner.puzzle_source import puzzle_source
from grader.mutants import as_cell, cell_source, specimens
from grader.running import PUBLIC_SEED, Ending, LocalDriver, Report, missing_requirement, run
from grader.usage import UsageError
from tinyllm import parts
from tinyllm.files import write_text
from tinyllm.paths import work_dir
from tinyllm.recorded import compile_part, name_of, source_hash, source_of

PROMISED = {"ValueError", "MemoryError"}  # errors that a right solution may answer with


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A wrong solution to look at.

    Attributes:
        source: its cell, without the name and the description of the mistake.
        text: the description.
    """

    source: str
    text: str

    @property
    def key(self) -> str:
        """What the record calls it: it gives nothing away."""
        return source_hash(self.source)


class Attempt(Property):
    """Runs a learner's attempt with one solution, right or wrong."""

    sentence = "what an attempt sees"

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Define the attempt and call it with the solution."""
        namespace = {"torch": torch, "__name__": "attempt", **vars(parts)}
        exec(compile_part(case["source"], "<your attempt>"), namespace)
        return outcome_of(lambda: namespace[case["name"]](getattr(parts, case["exercise"])), Exception)

    def judge(self, case: Case, observations: Observations) -> str | None:
        """Not judged by itself: two solutions are compared."""
        return None


ATTEMPT = Attempt()


def spot(obj: Any, attempt: Callable[[Any], Any] | None = None, bug: int | None = None) -> None:
    """Show a wrong solution of an exercise that you have solved, or try an attempt at showing what is wrong with it.

    An attempt is a function that takes the class or function, uses it, and returns something plain (numbers, lists,
    tensors) or raises. It is right when every right solution agrees on the outcome and the wrong one has another.
    What you found is kept in work/spot.json.

    Args:
        obj: your class or function, as for `check`.
        attempt: your attempt; without it the wrong solution is shown.
        bug: which of the wrong solutions, from 1; the first that you have not found by default.

    Raises:
        UsageError: there is no such exercise or bug, or the attempt is no function.
    """
    name = obj if isinstance(obj, str) else name_of(obj, exercises())
    exercise = find_exercise(name)
    known = puzzles(exercise)
    if not known:
        print(f"This copy of the course has no wrong solutions of {name} to show.")
        return
    if name in parts.all_parts() and not parts.checked_right(name):
        print(f"`spot({name})` shows what is nearly a solution: get yours right first, with `check({name})`.")
        return
    if all(missing_requirement(item.requires) for item in exercise.properties):
        raise UsageError(f"{name} {missing_requirement(exercise.properties[0].requires)}")
    found = record().get(name, {})
    waiting = [number for number, item in enumerate(known, 1) if not found.get(item.key, {}).get("found")]
    number = bug or (waiting[0] if waiting else len(known))
    if not 1 <= number <= len(known):
        raise UsageError(f"{name} has bugs 1 to {len(known)}; there is no bug {number}")
    puzzle = known[number - 1]
    title = f"Bug {number} of {len(known)} in {name}"
    if attempt is not None:
        print(f"{title}. {tried(exercise, puzzle, attempt)}")
    elif not waiting and bug is None:
        print(f"You have found all {len(known)} bugs of {name}. `spot({name}, bug=1)` shows the first again.")
    else:
        print(f"{title}. Something in this cell is wrong:\n\n{puzzle.source}\n")
        print(
            f"Find the smallest use of it that goes wrong, and give it to spot:\n\n"
            f"def attempt({name}):\n    ...  # use {name}, and return what you see\n\nspot({name}, attempt)"
        )


@cache
def puzzles(exercise: Exercise) -> tuple[Puzzle, ...]:
    """The wrong solutions that can be shown as one cell that gives nothing away."""
    mutants = specimens(exercise).mutants
    if not mutants:
        return ()
    solution = exercise_sources(exercise.name).solution
    cells = [(puzzle_source(cell_source(exercise, item, solution), solution, exercise.name), item) for item in mutants]
    return tuple(Puzzle(source, item.text) for source, item in cells if source)


# ---------------------------------------------------------------- an attempt


def tried(exercise: Exercise, puzzle: Puzzle, attempt: Callable[[Any], Any]) -> str:
    """Run an attempt, write it down, and say how it went."""
    if not inspect.isfunction(attempt) or attempt.__name__ == "<lambda>":
        raise UsageError(
            f"an attempt is a function: `def attempt({exercise.name}): ...`, then give it without calling it"
        )
    source = definitions(source_of(attempt))
    case = {"source": source, "name": attempt.__name__, "exercise": exercise.name}
    problem, seen = problem_of(exercise, puzzle, case)
    size = size_of(source)
    smallest = note(exercise.name, puzzle, source, size, not problem)
    if problem:
        return f"Not yet: {problem}"
    best = "your smallest so far" if smallest == size else f"your smallest has {smallest}"
    lines = [
        f"Right: {seen}.",
        puzzle.text,
        f"Your attempt has {size} calls, constants and loops; {best}. {checks_example(exercise, puzzle)}",
    ]
    return "\n".join(lines)


def problem_of(exercise: Exercise, puzzle: Puzzle, case: Case) -> tuple[str, str]:
    """Why an attempt shows no mistake, or else what it shows."""
    right = outcome(exercise, right_object(exercise), case)
    if right.ending is not Ending.OBSERVED:
        return f"with a right solution your attempt does not end well either: {right.message or right.ending}.", ""
    raised = set(right.observations.get("kinds", []))
    if raised and not raised & PROMISED:
        error = right.observations["raised"]
        return f"with a right solution your attempt raises {error}, too: that is no use that it promises to answer.", ""
    for other in specimens(exercise).alternates:
        again = outcome(exercise, other.obj, case)
        if again.ending is not Ending.OBSERVED or not alike(right.observations, again.observations):
            return (
                "right solutions differ in what your attempt returns: it is a free choice, such as which block is "
                "handed out. Return what all of them must agree on.",
                "",
            )
    wrong = outcome(exercise, wrong_object(exercise, puzzle), case)
    if wrong.ending is not Ending.OBSERVED:
        return "", f"with a right solution it {in_words(right)}, with this one: {wrong.message or wrong.ending}"
    if alike(right.observations, wrong.observations):
        return f"your attempt {in_words(right)} with a right solution and with this one.", ""
    if "value" in right.observations and "value" in wrong.observations:
        expected, got = two_texts(right.observations["value"], wrong.observations["value"])
        return "", f"with a right solution it returns {expected}, with this one {got}"
    return "", f"with a right solution it {in_words(right)}, with this one it {in_words(wrong)}"


def outcome(exercise: Exercise, obj: Any, case: Case) -> Report:
    """What an attempt sees with one solution."""
    return LocalDriver(replace(exercise, properties=(ATTEMPT,)), obj)(0, case)


def in_words(report: Report) -> str:
    """A report's observations in words."""
    seen = report.observations
    return f"raises {seen['raised']}" if "raised" in seen else f"returns {short(seen['value'])}"


def alike(a: Any, b: Any) -> bool:
    """Whether two outcomes are equal but for the rounding of floating point numbers."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        return bool(torch.isclose(a.double(), b.double(), rtol=1e-3, atol=1e-4, equal_nan=True).all())
    if isinstance(a, float) and isinstance(b, float):
        return alike(torch.tensor(a), torch.tensor(b))
    if isinstance(a, dict) and isinstance(b, dict):
        ignored = {"kinds"} if "raised" in a and "raised" in b else set()
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a.keys() - ignored)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(alike, a, b))
    return type(a) is type(b) and bool(a == b)


@cache
def right_object(exercise: Exercise) -> Any:
    """The reference solution."""
    return as_cell(exercise, exercise_sources(exercise.name).solution, f"right {exercise.name}", parts.references())


@cache
def wrong_object(exercise: Exercise, puzzle: Puzzle) -> Any:
    """What a puzzle's cell defines."""
    return as_cell(exercise, puzzle.source, f"bug {puzzle.key} of {exercise.name}", parts.references())


def checks_example(exercise: Exercise, puzzle: Puzzle) -> str:
    """The smallest input on which the check finds the mistake, to compare with."""
    result = run(exercise, PUBLIC_SEED, LocalDriver(exercise, wrong_object(exercise, puzzle)), shorten=True)
    text = next((item.case_text for item in result.properties if item.case_text), "")
    return f"The check finds it with: {text}." if text else ""


def definitions(cell: str) -> str:
    """A cell without what it does besides importing and defining, such as calling `spot`."""
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return "\n".join(ast.unparse(node) for node in ast.parse(cell).body if isinstance(node, kept))


def size_of(source: str) -> int:
    """How many calls, constants and loops a source has, docstrings left out."""
    tree = ast.parse(source)
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)} - {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    }
    counted = (ast.Call, ast.Constant, ast.For, ast.While, ast.comprehension)
    return sum(isinstance(node, counted) and id(node) not in texts for node in ast.walk(tree))


# ---------------------------------------------------------------- the record


def record_file() -> Path:
    """Where it is kept which bugs were found."""
    return work_dir() / "spot.json"


def record() -> dict[str, Any]:
    """By exercise and puzzle: tries, whether it was found, and the smallest right attempt with its size."""
    try:
        data = json.loads(record_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def note(name: str, puzzle: Puzzle, source: str, size: int, right: bool) -> int | None:
    """Write an attempt down; the size of the smallest right one so far."""
    data = record()
    entry = data.setdefault(name, {}).setdefault(puzzle.key, {"tries": 0, "found": False})
    entry["tries"] += 1
    if right and (not entry["found"] or size < entry["size"]):
        entry |= {"found": True, "size": size, "attempt": source}
    write_text(record_file(), json.dumps(data, indent=1) + "\n")
    return entry.get("size")
