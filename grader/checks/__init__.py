"""The properties that each exercise must have: one module per exercise, one package per day, found by their names."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module

from grader.framework import Exercise, UsageError
from tinyllm.names import did_you_mean
from tinyllm.part_table import PARTS, Part

CAPITALS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # where a word of a class's name begins


@cache
def exercises() -> dict[str, Exercise]:
    """Every exercise by name, in the order in which the course asks for them; an instructor's own come last."""
    from grader.own import own_exercises  # not there beside a submission, which needs the rest of this module

    return {part.name: import_module(module_of(part)).EXERCISE for part in PARTS} | own_exercises()


def module_of(part: Part) -> str:
    """The module with a part's checks: `grader.checks.day1.paged_kv_cache` of PagedKVCache."""
    return f"grader.checks.day{part.day}.{CAPITALS.sub('_', part.name).lower()}"


def find_exercise(name: str) -> Exercise:
    """The exercise called `name`.

    Raises:
        UsageError: there is none; the message lists those that there are.
    """
    known = exercises()
    if name not in known:
        listed = ", ".join(known)
        raise UsageError(f"no exercise is called {name!r}. The exercises are: {listed}{did_you_mean(name, known)}")
    return known[name]
