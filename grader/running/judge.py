"""Running an exercise's properties: the same steps at home, where the driver is a call, and in grading, where it is
a process at the other end of a socket."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from grader.framework import Case, CheckResult, Exercise, Outcome, Property, PropertyResult
from grader.running.limits import TimeLimitExceeded, time_limit
from grader.running.report import Driver, Ending, Report, text_of
from tinyllm.doctor import CHECKS

PUBLIC_SEED = 1  # of `check`: everybody sees the same cases, and sees them again after an edit


def run(exercise: Exercise, seed: int, driver: Driver, shorten: bool = False) -> CheckResult:
    """Check every property, without a diagnosis (see grader/mutants/diagnosis.py).

    Args:
        shorten: show failing cases no further than to the failure; costs a few more drives of each.
    """
    results = [run_property(exercise, index, seed, driver, shorten) for index in range(len(exercise.properties))]
    return CheckResult(exercise.name, seed, tuple(results))


def run_property(exercise: Exercise, index: int, seed: int, driver: Driver, shorten: bool = False) -> PropertyResult:
    """The result of the property at `index`, which ends with its first case that is not right.

    Args:
        shorten: show the failing case without what comes after the failure; it is driven some more times for that.
    """
    return run_fixed(exercise, index, driver, shorten) or run_random(exercise, index, seed, driver, shorten)


def run_fixed(exercise: Exercise, index: int, driver: Driver, shorten: bool = False) -> PropertyResult | None:
    """The result of a property that its fixed cases decide, whatever the seed; None where all of them are right."""
    item = exercise.properties[index]
    missing = missing_requirement(item.requires)
    if missing:
        return PropertyResult(item.sentence, item.weight, Outcome.NOT_CHECKED, missing)
    failure = first_failure(exercise, index, fixed_cases(exercise, index), driver, shorten)
    return replace(failure, fixed=True) if failure else None


def run_random(exercise: Exercise, index: int, seed: int, driver: Driver, shorten: bool = False) -> PropertyResult:
    """The result of a property whose fixed cases are right: what its random ones say.

    They depend on the seed and its sentence alone, not on its neighbors.
    """
    item, before = exercise.properties[index], len(fixed_cases(exercise, index))
    cases = random_cases(exercise, index, seed)
    if not before and not cases:
        raise ValueError(f"{exercise.name}: {item.sentence!r} has no case with seed {seed}")
    failure = first_failure(exercise, index, cases, driver, shorten)
    if failure is None:
        return PropertyResult(item.sentence, item.weight, Outcome.RIGHT)
    return replace(failure, case_index=before + (failure.case_index or 0))


def first_failure(
    exercise: Exercise, index: int, cases: Sequence[Case], driver: Driver, shorten: bool
) -> PropertyResult | None:
    """The result on the first of these cases that is not right; None if all are."""
    item = exercise.properties[index]
    for number, case in enumerate(cases):
        report = driver(index, case)
        verdict = judge_report(item, case, report)
        if verdict is not None:
            outcome, message, key = verdict
            shown = as_far_as_it_fails(item, index, case, verdict, driver) if shorten else case
            text = item.describe(shown)
            return PropertyResult(item.sentence, item.weight, outcome, message, key, number, text, report.printed)
    return None


@lru_cache(maxsize=256)
def fixed_cases(exercise: Exercise, index: int) -> tuple[Case, ...]:
    """The fixed cases of a property."""
    return tuple(exercise.properties[index].fixed_cases())


@lru_cache(maxsize=256)
def random_cases(exercise: Exercise, index: int, seed: int) -> tuple[Case, ...]:
    """The cases of a property that a seed gives."""
    item = exercise.properties[index]
    return tuple(item.random_cases(random.Random(f"{seed}/{exercise.name}/{item.sentence}")))


def as_far_as_it_fails(
    item: Property, index: int, case: Case, verdict: tuple[Outcome, str, str], driver: Driver
) -> Case:
    """The case without what comes after the failure: the shortest lists found that give the very same verdict."""
    if verdict[0] not in (Outcome.WRONG, Outcome.CRASHED) or verdict[2] == "lost":
        return case  # each try would take as long again, or a new process
    for name in item.in_order:
        shortest, too_short = len(case[name]), 0
        while shortest - too_short > 1:
            length = (shortest + too_short) // 2
            shorter = {**case, name: case[name][:length]}
            if judge_report(item, shorter, driver(index, shorter)) == verdict:
                shortest = length
            else:
                too_short = length
        case = {**case, name: case[name][:shortest]}
    return case


def judge_report(item: Property, case: Case, report: Report) -> tuple[Outcome, str, str] | None:
    """None when the case is right, else outcome, message, and the message's part that diagnosis compares."""
    if report.ending is Ending.STUB:
        return Outcome.NOT_ATTEMPTED, report.message, "stub"
    if report.ending is Ending.CRASHED:
        return Outcome.CRASHED, report.message, f"crashed: {report.error}"
    if report.ending is Ending.TIMED_OUT:
        return (
            Outcome.TIMED_OUT,
            f"it took longer than {item.time_limit:g} seconds; perhaps a loop never ends",
            "timed out",
        )
    if report.ending is Ending.LOST:
        return Outcome.CRASHED, report.message, "lost"
    if report.changed:
        names = ", ".join(f"`{name}`" for name in report.changed)
        message = f"your code changes its argument {names}; work on a copy"
        return Outcome.WRONG, message, message
    try:
        with time_limit(item.time_limit):
            message = item.judge(case, report.observations) or ""
    except TimeLimitExceeded:
        message = "what your code returned takes too long to compare"
    except Exception as error:  # a judge meets data that the learner's code chose
        message = f"what your code returned cannot be compared ({type(error).__name__}: {text_of(error)})"
    return (Outcome.WRONG, message, message) if message else None


def missing_requirement(requires: str) -> str:
    """What this machine lacks for a property, in words; empty when nothing."""
    if requires == "cuda" and not torch.cuda.is_available():
        return "needs an NVIDIA GPU"
    if requires == "triton":
        found = CHECKS["triton"]()
        return f"needs Linux or a GPU (Triton: {found.detail}; {found.fix})" if found.state == "missing" else ""
    return ""
