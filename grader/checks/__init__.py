"""The properties that each exercise must have: one module per exercise, one package per day."""

from __future__ import annotations

from functools import cache

from grader.framework import Exercise, UsageError
from tinyllm.names import did_you_mean


@cache
def exercises() -> dict[str, Exercise]:
    """Every exercise by name, in the order in which the course asks for them; an instructor's own come last."""
    from grader.checks import day1, day2
    from grader.own import own_exercises

    return {exercise.name: exercise for exercise in (*day1.EXERCISES, *day2.EXERCISES)} | own_exercises()


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
