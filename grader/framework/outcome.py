"""How a property came out, and which known mistake it is: what a check's result (results.py) is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a property, or a whole exercise, came out."""

    NOT_ATTEMPTED = "not attempted"  # a stub was met
    CRASHED = "crashed"  # an error came out of the learner's code
    WRONG = "wrong"
    TIMED_OUT = "timed out"  # wrong, with words of its own
    NOT_CHECKED = "not checked here"  # what it needs is not on this machine
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class PropertyResult:
    """One property's outcome, on the first (smallest) case that is not right.

    Attributes:
        sentence: the property's.
        weight: points that it earns when right.
        outcome: how it came out.
        message: what was expected and what came, in a sentence; empty when right.
        key: the message without what differs between two ways of making one mistake; diagnosis compares it.
        case_index: which of the property's cases failed; None when none did.
        case_text: that case in words.
        printed: what the learner's code printed on that case.
        fixed: whether that case is one of those that everybody meets, whatever the seed.
    """

    sentence: str
    weight: float
    outcome: Outcome
    message: str = ""
    key: str = ""
    case_index: int | None = None
    case_text: str = ""
    printed: str = ""
    fixed: bool = False

    @property
    def points(self) -> float:
        """Points earned."""
        return float(self.weight) if self.outcome is Outcome.RIGHT else 0.0


def without_numbers(item: PropertyResult) -> str:
    """A crash's message with "#" for the numbers in the error's own text; any other message as it is."""
    if item.outcome is not Outcome.CRASHED:
        return item.message
    text, comma, place = item.message.rpartition(", in line ")
    return re.sub(r"\d+", "#", text) + comma + place if comma else item.message


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A known mistake that behaves as the learner's code does: its name and its description."""

    name: str
    text: str
