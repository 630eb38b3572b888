"""Checks, hints and solutions for learners; the builder, the gate and the grading for instructors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grader.learner.spotting import spot
    from grader.learner.verbs import check, hint, solution

__all__ = ["check", "hint", "solution", "spot"]


def __getattr__(name: str) -> Any:
    """Load the learner's verbs on first use: the judge and the command line start without them."""
    if name in __all__:
        return getattr(import_module("grader.learner.spotting" if name == "spot" else "grader.learner.verbs"), name)
    raise AttributeError(f"module 'grader' has no attribute {name!r}")
