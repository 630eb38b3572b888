"""Checks, hints and solutions for learners; the builder, the gate and the grading for instructors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grader.learner import check, hint, solution

__all__ = ["check", "hint", "solution"]


def __getattr__(name: str) -> Any:
    """Load the learner's verbs on first use: the judge and the command line start without them."""
    if name in __all__:
        from grader import learner

        return getattr(learner, name)
    raise AttributeError(f"module 'grader' has no attribute {name!r}")
