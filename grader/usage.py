"""Errors of people rather than of programs, shown in a notebook as one line without a traceback."""

from __future__ import annotations


class ShortError(Exception):
    """An error whose message says all there is to say."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class UsageError(ShortError):
    """Something of the grader was called on the wrong thing. The message says what to do."""


class CheckFailed(ShortError):
    """A check is not right while nbgrader validates a notebook: the Validate button reports the message."""
