"""Errors of people rather than of programs, shown in a notebook as one line without a traceback."""

from __future__ import annotations

import inspect
from typing import Any


class ShortError(Exception):
    """An error whose message says all there is to say."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class UsageError(ShortError):
    """Something of the grader was called on the wrong thing. The message says what to do."""


class CheckFailed(ShortError):
    """A check is not right while nbgrader validates a notebook: the Validate button reports the message."""


def unusable(name: str, kind: str, obj: Any) -> str:
    """Why an object cannot be the answer to an exercise of this kind, at home and in grading; empty when it can."""
    wanted = "class" if kind == "class" else "function"
    if isinstance(obj, type) is not (kind == "class") or (not isinstance(obj, type) and not inspect.isfunction(obj)):
        got = "a class" if isinstance(obj, type) else "a function" if inspect.isfunction(obj) else "neither"
        return f"{name} must be a {wanted}, and yours is {got}: start from the cell's stub"
    if getattr(obj, "__name__", "") == "<lambda>":
        return f"{name} is a lambda, which has no name of its own: write it as `def {name}(...):`"
    if inspect.iscoroutinefunction(obj):
        return f"{name} is an `async def`, which gives a coroutine in place of its result: write it as a plain `def`"
    return ""
