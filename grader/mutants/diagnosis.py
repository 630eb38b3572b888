"""Which known mistake a wrong answer is: the one that comes out as it does on every case that was tried.

A mutant must be right where the answer is right, and fail where it fails, first on the same case and in the same words.
Then both are tried on the other cases of the properties that fail: whether one fails there too must agree, but not the
words, since what goes wrong late depends on free choices made early. The cheapest comparison comes first: of most
mutants a single case is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from grader.framework import Case, CheckResult, Diagnosis, Exercise, Outcome
from grader.mutants.specimen import Specimen, Specimens, specimens
from grader.running import Driver, LocalDriver
from grader.running.judge import fixed_cases, judge_report, random_cases

MUTANT_TIME_SHARE = 0.1  # of a property's time limit: a mutant that loops for ever is known by then

Verdict = tuple[Outcome, str | None]  # of one case: how it came out, and the part of its message that is compared
RIGHT: Verdict = (Outcome.RIGHT, "")
Place = tuple[int, int]  # a property's index and the number of a case among all of its own, the fixed ones first


def diagnosed(exercise: Exercise, result: CheckResult, driver: Driver, known: Specimens | None = None) -> CheckResult:
    """The result with the mutants that behave alike; unchanged when it is right or not attempted.

    Args:
        driver: drives the answer that the result is of.
        known: the exercise's specimens; looked up in their files when not given.

    Raises:
        ValueError: the result has no seed, so its cases cannot be drawn again.
    """
    if result.outcome in (Outcome.RIGHT, Outcome.NOT_ATTEMPTED, Outcome.NOT_CHECKED):
        return result
    if result.seed is None:
        raise ValueError("a result without its seed cannot be diagnosed")
    found = list((specimens(exercise) if known is None else known).mutants)
    for wanted in (first_failures(result), verdicts_of(exercise, result), other_verdicts(exercise, result, driver)):
        for place, verdict in wanted:  # none is looked at once there is no mutant left
            found = [item for item in found if agree(mutant_verdict(exercise, item, result.seed, place), verdict)]
            if not found:
                return result
    return replace(result, diagnoses=tuple(Diagnosis(item.name, item.text) for item in found))


def agree(got: Verdict, wanted: Verdict) -> bool:
    """Whether two verdicts on one case are the same, words included where they are wanted."""
    return got[0] is wanted[0] and wanted[1] in (None, got[1])


def first_failures(result: CheckResult) -> Iterator[tuple[Place, Verdict]]:
    """The first failing case of each property that fails, the smallest case first."""
    failing = [(item.case_index, index, item) for index, item in enumerate(result.properties) if failed(item.outcome)]
    for number, index, item in sorted(failing, key=lambda entry: entry[:2]):
        yield (index, number or 0), (item.outcome, item.key)


def failed(outcome: Outcome) -> bool:
    """Whether a property of this outcome has a case that is not right."""
    return outcome not in (Outcome.RIGHT, Outcome.NOT_CHECKED)


def verdicts_of(exercise: Exercise, result: CheckResult) -> Iterator[tuple[Place, Verdict]]:
    """What is known of the cases that were run: all before a first failure are right."""
    assert result.seed is not None
    for index, item in enumerate(result.properties):
        if item.outcome is Outcome.NOT_CHECKED:
            continue
        count = len(all_cases(exercise, index, result.seed)) if item.case_index is None else item.case_index
        yield from (((index, number), RIGHT) for number in range(count))


def other_verdicts(exercise: Exercise, result: CheckResult, driver: Driver) -> Iterator[tuple[Place, Verdict]]:
    """What comes of the cases behind the first failures, which are run now; behind one that hangs none is.

    Where a fixed case has failed, it is the fixed ones: the diagnosis then depends on no seed, as the mark does.
    """
    assert result.seed is not None
    for index, item in enumerate(result.properties):
        if item.outcome not in (Outcome.WRONG, Outcome.CRASHED):
            continue
        cases = fixed_cases(exercise, index) if item.fixed else all_cases(exercise, index, result.seed)
        for number in range((item.case_index or 0) + 1, len(cases)):
            verdict = verdict_on(exercise, index, cases[number], driver)
            yield (index, number), (verdict[0], None)
            if verdict[0] is Outcome.TIMED_OUT or verdict[1] == "lost":
                break


def all_cases(exercise: Exercise, index: int, seed: int) -> tuple[Case, ...]:
    """The cases of a property in their order."""
    return fixed_cases(exercise, index) + random_cases(exercise, index, seed)


def verdict_on(exercise: Exercise, index: int, case: Case, driver: Driver) -> Verdict:
    """How a case comes out."""
    judged = judge_report(exercise.properties[index], case, driver(index, case))
    return RIGHT if judged is None else (judged[0], judged[2])


def mutant_verdict(exercise: Exercise, mutant: Specimen, seed: int, place: Place) -> Verdict:
    """How a case comes out for a mutant; a fixed one is run once, whatever the seed."""
    fixed = place[1] < len(fixed_cases(exercise, place[0]))
    return kept_verdict(exercise, mutant, None if fixed else seed, place)


@lru_cache(maxsize=16384)
def kept_verdict(exercise: Exercise, mutant: Specimen, seed: int | None, place: Place) -> Verdict:
    """The same, kept: a learner checks again and again, and a class meets the same fixed cases."""
    index, number = place
    cases = fixed_cases(exercise, index) if seed is None else all_cases(exercise, index, seed)
    longest = MUTANT_TIME_SHARE * exercise.properties[index].time_limit
    return verdict_on(exercise, index, cases[number], LocalDriver(exercise, mutant.obj, longest))
