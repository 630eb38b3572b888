"""Whether a check catches a wrong answer: property by property, up to the first that fails, on each seed."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Sequence
from dataclasses import dataclass

from grader.diagnosis import MUTANT_TIME_SHARE
from grader.framework import Case, Exercise
from grader.mutants import as_cell
from grader.results import Outcome, PropertyResult
from grader.running import LocalDriver, Report, run_property, same

LABEL = "mutation"  # of the cell
WAKE_SECONDS = 20.0  # after its time limit a case that no alarm has ended takes the process with it


@dataclass(frozen=True, slots=True)
class Job:
    """An answer to try.

    Attributes:
        text: its cell.
        seeds: on each of which it should be caught.
        time_share: of each property's time limit that a case may take.
    """

    exercise: Exercise
    text: str
    seeds: tuple[int, ...]
    time_share: float = MUTANT_TIME_SHARE


@dataclass(frozen=True, slots=True)
class Trial:
    """How that went.

    Attributes:
        caught: on every seed.
        how: the property that failed on the last seed tried and its message, or the seed on which none did.
        timed_out: whether it was caught for taking too long.
        caught_on: seeds tried before and on which it was caught.
    """

    caught: bool
    how: str
    timed_out: bool = False
    caught_on: tuple[int, ...] = ()


class Remembering:
    """A driver that drives equal cases once: many are the same for every seed."""

    def __init__(self, job: Job) -> None:
        """Run the cell."""
        self.job = job
        self.driver = LocalDriver(job.exercise, as_cell(job.exercise, job.text, LABEL))
        self.seen: dict[int, list[tuple[Case, Report]]] = {}

    def __call__(self, index: int, case: Case) -> Report:
        """Drive a case, or say again what came of it."""
        seen = self.seen.setdefault(index, [])
        for known, report in seen:
            if same(known, case):
                return report
        seconds = self.job.time_share * self.job.exercise.properties[index].time_limit
        self.driver.longest = seconds
        with open(os.devnull, "w") as nowhere:
            faulthandler.dump_traceback_later(seconds + WAKE_SECONDS, exit=True, file=nowhere)
            try:
                report = self.driver(index, case)
            finally:
                faulthandler.cancel_dump_traceback_later()
        seen.append((case, report))
        return report


def tried(job: Job) -> Trial:
    """Run the answer of a job."""
    try:
        driver = Remembering(job)
    except Exception as error:
        return Trial(True, f"the cell does not run: {type(error).__name__}: {error}", caught_on=job.seeds)
    order = list(range(len(job.exercise.properties)))
    how, timed_out = "no seed was tried", False
    caught_on: list[int] = []
    for seed in job.seeds:
        index, failed = first_failure(job.exercise, order, seed, driver)
        if failed is None:
            return Trial(False, f"nothing fails with seed {seed}", caught_on=tuple(caught_on))
        order.sort(key=lambda item: item != index)  # what caught it once will again
        caught_on.append(seed)
        how, timed_out = f"{failed.sentence}: {failed.message}", timed_out or failed.outcome is Outcome.TIMED_OUT
    return Trial(True, how, timed_out, tuple(caught_on))


def first_failure(
    exercise: Exercise, order: Sequence[int], seed: int, driver: Remembering
) -> tuple[int, PropertyResult | None]:
    """The first property, in this order, that fails, and its index; None where all hold."""
    for index in order:
        result = run_property(exercise, index, seed, driver)
        if result.outcome not in (Outcome.RIGHT, Outcome.NOT_CHECKED):
            return index, result
    return -1, None
