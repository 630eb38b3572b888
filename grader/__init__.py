"""Checks, hints and solutions for learners; the builder, the gate and the grading for instructors.

From the bottom up: framework (what a check is written with), running (a driver runs an answer, a judge looks at what
came), checks (of each exercise), build (lessons to notebooks), mutants (known mistakes, and the diagnosis), mutation
(the gate, and small changes to right answers), learner (the verbs of a notebook).

For classes: sandbox (isolation, a jail for each exercise), marks (what a mark is made of), reporting (pages, tables,
gradebook), pipeline (from submissions to all of that), selftest, instructor (the other verbs), cli.
"""

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
