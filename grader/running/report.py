"""What a driver tells of one case: plain data, whichever process the learner's code ran in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from grader.framework import Case


class Ending(StrEnum):
    """How driving one case ended."""

    OBSERVED = "observed"
    STUB = "stub"
    CRASHED = "crashed"
    TIMED_OUT = "timed out"
    LOST = "lost"  # the driver's process died, or sent what cannot be read


@dataclass(frozen=True, slots=True)
class Report:
    """What a driver tells of one case.

    Attributes:
        ending: whether there are observations, or why not.
        observations: plain data, when `ending` is OBSERVED.
        message: what happened, in words, when it is not.
        error: the class of the error that ended it.
        changed: names of the arguments that the learner's code changed.
        printed: what it printed.
    """

    ending: Ending
    observations: Any = None
    message: str = ""
    error: str = ""
    changed: tuple[str, ...] = ()
    printed: str = ""


Driver = Callable[[int, Case], Report]  # (index of the property, case) -> report


def text_of(error: BaseException) -> str:
    """An error's message, cut; the learner's own `__str__` may fail too."""
    try:
        text = str(error)
    except Exception:
        return ""
    return text if len(text) <= 300 else text[:296] + " ..."
