"""Which known mistake a wrong answer is: the one that fails in the same places, in the same way, on the same cases."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from grader.framework import Exercise
from grader.mutants import Specimen, Specimens, specimens
from grader.results import CheckResult, Diagnosis, Outcome, PropertyResult
from grader.running import LocalDriver, run_property

MUTANT_TIME_SHARE = 0.1  # of a property's time limit: a mutant that loops for ever is known by then


def diagnosed(exercise: Exercise, result: CheckResult, known: Specimens | None = None) -> CheckResult:
    """The result with the mutants that behave alike; unchanged when it is right or not attempted.

    Args:
        known: the exercise's specimens; looked up in their files when not given.

    Raises:
        ValueError: the result has no seed, so its cases cannot be drawn again.
    """
    if result.outcome in (Outcome.RIGHT, Outcome.NOT_ATTEMPTED, Outcome.NOT_CHECKED):
        return result
    if result.seed is None:
        raise ValueError("a result without its seed cannot be diagnosed")
    mutants = (specimens(exercise) if known is None else known).mutants
    found = [item for item in mutants if behaves_as(exercise, item, result)]
    return replace(result, diagnoses=tuple(Diagnosis(item.name, item.text) for item in found))


def behaves_as(exercise: Exercise, mutant: Specimen, result: CheckResult) -> bool:
    """Whether a mutant has the result's outcome on every property, and the same smallest failure."""
    assert result.seed is not None
    at_first_failure = True
    for index, wanted in enumerate(result.properties):
        got = behaviour(exercise, mutant, result.seed, index)
        if wanted.outcome is not got.outcome:
            return False
        failed = wanted.outcome not in (Outcome.RIGHT, Outcome.NOT_CHECKED)
        if failed and at_first_failure:
            if (wanted.case_index, wanted.key) != (got.case_index, got.key):
                return False
            at_first_failure = False
    return True


@lru_cache(maxsize=4096)
def behaviour(exercise: Exercise, mutant: Specimen, seed: int, index: int) -> PropertyResult:
    """How a mutant does on one property; kept, since a learner checks again and again with the same seed."""
    longest = MUTANT_TIME_SHARE * exercise.properties[index].time_limit
    driver = LocalDriver(exercise, mutant.obj, longest)
    return run_property(exercise, index, seed, driver)
