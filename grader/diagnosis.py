"""Which known mistake a wrong answer is: the one that fails in the same places, in the same way, on the same cases."""

from __future__ import annotations

from dataclasses import replace

from grader.framework import Exercise
from grader.mutants import Specimen, Specimens, specimens
from grader.results import CheckResult, Diagnosis, Outcome, PropertyResult
from grader.running import LocalDriver, run_properties

MUTANT_TIME_LIMIT = 1.0  # seconds a case: a mutant that loops for ever is known by then


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
    driver = LocalDriver(exercise, mutant.obj, longest=MUTANT_TIME_LIMIT)
    at_first_failure = True
    for wanted, got in zip(result.properties, run_properties(exercise, result.seed, driver), strict=True):
        if wanted.outcome is not got.outcome:
            return False
        failed = wanted.outcome not in (Outcome.RIGHT, Outcome.NOT_CHECKED)
        if failed and at_first_failure:
            if failure(wanted) != failure(got):
                return False
            at_first_failure = False
    return True


def failure(item: PropertyResult) -> tuple[str, int | None, str]:
    """What two ways of making one mistake have in common at a property: case and normalised message."""
    return item.sentence, item.case_index, item.key
