"""The hidden check of an instructor's notebook, for nbgrader used by itself: fresh cases, judged in this process.

`grader grade` does not run it: there the judge is another process than the one that runs a student's code.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

from grader.learner.verbs import exercise_of
from grader.mutants.diagnosis import diagnosed
from grader.running import LocalDriver, run
from grader.usage import UsageError
from tinyllm.parts import is_reference


def check_hidden(obj: Any) -> float:
    """Check an answer on hidden cases, print the tick list without them, and return the points.

    The cases are drawn from the seed in $GRADER_SECRET_SEED, or a fresh one.

    Raises:
        UsageError: this is no answer to an exercise, or the course's own one.
    """
    exercise = exercise_of(obj)
    if is_reference(obj):
        raise UsageError(f"this {exercise.name} is the course's own, imported after your answer; it earns nothing")
    seed = int(os.environ.get("GRADER_SECRET_SEED") or secrets.randbits(32))
    driver = LocalDriver(exercise, obj)
    result = diagnosed(exercise, run(exercise, seed, driver), driver).without_inputs()
    print(result)
    return float(result.points)
