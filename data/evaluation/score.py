"""Shares of right answers with their uncertainty, and what makes an answer over passages right."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Any

from data.tasks.tool_goals import Answer

Z_95 = 1.959964  # how many standard errors lie on each side of a 95 % interval
NOT_GIVEN = "not given"
_LABEL = re.compile(r"\s*\[(\d+)\]")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something came out right; the outcomes are kept in their order, so that a part can be run again."""

    outcomes: tuple[bool, ...]

    @classmethod
    def of(cls, outcomes: Iterable[object]) -> Rate:
        """From anything that is true or not."""
        return cls(tuple(map(bool, outcomes)))

    @property
    def right(self) -> int:
        """How many were right."""
        return sum(self.outcomes)

    @property
    def share(self) -> float:
        """The part that was right; 0 where nothing was asked."""
        return self.right / max(1, len(self.outcomes))

    def as_json(self) -> dict[str, Any]:
        """Counts, share, 95 % interval, and the outcomes as a string of 0 and 1."""
        low, high = wilson(self.right, len(self.outcomes))
        return {
            "right": self.right,
            "asked": len(self.outcomes),
            "share": round(self.share, 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "outcomes": "".join("01"[hit] for hit in self.outcomes),
        }


Rates = dict[str, Rate]  # measure -> how often


def wilson(right: int, asked: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); it stays within 0 and 1 and needs no large counts."""
    if not asked:
        return 0.0, 1.0
    share, square = right / asked, Z_95**2
    middle = share + square / (2 * asked)
    reach = Z_95 * sqrt(share * (1 - share) / asked + square / (4 * asked**2))
    scale = 1 + square / asked
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an answer over passages got right.

    Attributes:
        value: it states the value, and no other number where the value is one.
        citation: it cites the passage that gives the value, and no other.
        abstained: it says that the answer is not given, and cites nothing.
    """

    value: bool
    citation: bool
    abstained: bool

    @property
    def right(self) -> bool:
        """Whether value and citation are right."""
        return self.value and self.citation


def judge(text: str, value: int | str | None, label: int) -> Judgement:
    """Hold an answer against the expected value and label; `value=None` where no passage answers."""
    labels = {int(number) for number in _LABEL.findall(text)}
    said = _LABEL.sub("", text)
    abstained = NOT_GIVEN in said.lower() and not labels
    if value is None or NOT_GIVEN in said.lower():
        return Judgement(value=False, citation=False, abstained=abstained)
    expected = str(value)
    stated = Answer("", expected).accepts(said)
    if expected.isdigit():
        stated = stated and set(_NUMBER.findall(said)) == {expected}
    return Judgement(value=stated, citation=labels == {label}, abstained=False)
