"""Errors of people rather than of programs, shown in a notebook as one line without a traceback."""

from __future__ import annotations

import inspect
from typing import Any

from tinyllm.recorded import function_of


class ShortError(Exception):
    """An error whose message says all there is to say."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class UsageError(ShortError):
    """Something of the grader was called on the wrong thing. The message says what to do."""


class CheckFailed(ShortError):
    """A check is not right while nbgrader validates a notebook: the Validate button reports the message."""


#: What the answer to an exercise of a kind must be, as `kind_of` says it; of all other kinds a function.
WANTED = {"class": "a class", "tile": "a function with `@triton.jit` above it"}


def kind_of(obj: Any) -> str:
    """What an object is, in words."""
    if isinstance(obj, type):
        return "a class"
    if inspect.isfunction(obj):
        return "a function"
    return WANTED["tile"] if inspect.isfunction(function_of(obj)) else "neither a class nor a function"


def unusable(name: str, kind: str, obj: Any) -> str:
    """Why an object cannot be the answer to an exercise of this kind, at home and in grading; empty when it can."""
    wanted, got = WANTED.get(kind, "a function"), kind_of(obj)
    if wanted != got:
        return f"{name} must be {wanted}, and yours is {got}: start from the cell's stub"
    if getattr(obj, "__name__", "") == "<lambda>":
        return f"{name} is a lambda, which has no name of its own: write it as `def {name}(...):`"
    if inspect.iscoroutinefunction(obj):
        return f"{name} is an `async def`, which gives a coroutine in place of its result: write it as a plain `def`"
    return ""
