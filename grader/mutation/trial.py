"""Whether a check catches a wrong answer: property by property, up to the first that fails, on each seed."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from grader.framework import Case, Exercise, Outcome, PropertyResult
from grader.mutants import as_cell
from grader.mutants.diagnosis import MUTANT_TIME_SHARE
from grader.running import Driver, LocalDriver, Report
from grader.running.judge import run_property
from grader.running.remembering import Remembering

LABEL = "mutation"  # of the cell
LEAST_SECONDS = 1.0  # that a case may take, on a busy machine too
WAKE_SECONDS = 5.0  # after its time limit a case that no alarm has ended takes the process with it


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
        missed: seeds on which nothing failed.
        how: the property that failed on the last of the others, and its message; empty where none did.
        timed_out: whether that took too long, which a busy machine makes of what is slow.
    """

    missed: tuple[int, ...]
    how: str
    timed_out: bool = False

    @property
    def caught(self) -> bool:
        """Whether it was caught on every seed."""
        return not self.missed


class Limited:
    """Drives the answer of a job, each case no longer than the job says."""

    def __init__(self, job: Job) -> None:
        """Run the cell."""
        self.job = job
        self.driver = LocalDriver(job.exercise, as_cell(job.exercise, job.text, LABEL))

    def __call__(self, index: int, case: Case) -> Report:
        """Drive a case."""
        seconds = max(LEAST_SECONDS, self.job.time_share * self.job.exercise.properties[index].time_limit)
        self.driver.longest = seconds
        if self.job.exercise.in_triton:  # what runs kernels is ended by its own side
            return self.driver(index, case)
        with no_longer_than(seconds + WAKE_SECONDS):
            return self.driver(index, case)


@contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    """End the process when the block takes longer, whatever it is in: Python hears an alarm between two steps only."""
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def tried(job: Job) -> Trial:
    """Run the answer of a job."""
    try:
        driver = Remembering(Limited(job))
    except Exception as error:
        return Trial((), f"the cell does not run: {type(error).__name__}: {error}")
    order = list(range(len(job.exercise.properties)))
    missed: list[int] = []
    how, timed_out = "", False
    for seed in job.seeds:
        index, failed = first_failure(job.exercise, order, seed, driver)
        if failed is None:
            missed.append(seed)
            continue
        how, timed_out = f"{failed.sentence}: {failed.message}", failed.outcome is Outcome.TIMED_OUT
        if failed.fixed:  # the same cases for every seed
            break
        order.sort(key=lambda item: item != index)  # what caught it once will again
    return Trial(tuple(missed), how, timed_out)


def first_failure(
    exercise: Exercise, order: Sequence[int], seed: int, driver: Driver
) -> tuple[int, PropertyResult | None]:
    """The first property, in this order, that fails, and its index; None where all hold."""
    for index in order:
        result = run_property(exercise, index, seed, driver)
        if result.outcome not in (Outcome.RIGHT, Outcome.NOT_CHECKED):
            return index, result
    return -1, None
