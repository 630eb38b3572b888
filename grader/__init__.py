"""Checks, hints and solutions for learners; the builder, the gate and the grading for instructors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grader.learner import check, hint, solution
    from grader.spotting import spot

__all__ = ["check", "hint", "solution", "spot"]


def __getattr__(name: str) -> Any:
    """Load the learner's verbs on first use: the judge and the command line start without them."""
    if name in __all__:
        return getattr(import_module("grader.spotting" if name == "spot" else "grader.learner"), name)
    raise AttributeError(f"module 'grader' has no attribute {name!r}")
