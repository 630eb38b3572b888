"""What is wrong with a chapter, and where."""

from __future__ import annotations

from dataclasses import dataclass


class FaultError(Exception):
    """A directive or formula that cannot be rendered. The message says what is wrong and what to write instead."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault with its place, printed as `day1.md:34: message`."""

    chapter: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.chapter}:{self.line}: {self.message}"
