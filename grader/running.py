"""Running an exercise's properties: the same steps at home, where the driver is a call, and in grading, where it is
a process at the other end of a socket."""

from __future__ import annotations

import random
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from grader.framework import Case, Exercise, Property
from grader.limits import TimeLimitExceeded, recorded_output, time_limit
from grader.observe import ObservationError, mro_of, plain
from grader.results import CheckResult, Outcome, PropertyResult
from tinyllm.doctor import CHECKS
from tinyllm.parts import references
from tinyllm.paths import project_root
from tinyllm.recorded import codes_of

PUBLIC_SEED = 1  # of `check`: everybody sees the same cases, and sees them again after an edit


class Ending(StrEnum):
    """How driving one case ended."""

    OBSERVED = "observed"
    STUB = "stub"
    CRASHED = "crashed"
    TIMED_OUT = "timed out"
    LOST = "lost"  # the driver's process died, or sent what cannot be read


@dataclass(frozen=True, slots=True)
class Report:
    """What a driver tells of one case.

    Attributes:
        ending: whether there are observations, or why not.
        observations: plain data, when `ending` is OBSERVED.
        message: what happened, in words, when it is not.
        error: the class of the error that ended it.
        changed: names of the arguments that the learner's code changed.
        printed: what it printed.
    """

    ending: Ending
    observations: Any = None
    message: str = ""
    error: str = ""
    changed: tuple[str, ...] = ()
    printed: str = ""


Driver = Callable[[int, Case], Report]  # (index of the property, case) -> report


# ---------------------------------------------------------------- the judge's side


def run(exercise: Exercise, seed: int, driver: Driver, shorten: bool = False) -> CheckResult:
    """Check every property, without a diagnosis (see diagnosis.py).

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

    They depend on the seed and its sentence alone, not on its neighbours.
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


# ---------------------------------------------------------------- the driver's side


class LocalDriver:
    """Drives an object of this process: the learner's in a notebook, a mutant, the reference."""

    def __init__(self, exercise: Exercise, obj: Any, longest: float | None = None) -> None:
        """`longest` caps every property's time limit, in seconds."""
        self.exercise = exercise
        self.obj = obj
        self.longest = longest
        self.files = files_of(obj)
        self.parts = SimpleNamespace(**{**references(), exercise.name: obj})

    def __call__(self, index: int, case: Case) -> Report:
        """Drive one case of the property at `index`; errors of the learner's code end up in the report."""
        item = self.exercise.properties[index]
        seconds = item.time_limit if self.longest is None else min(item.time_limit, self.longest)
        if self.exercise.kind == "kernel":
            from grader.kernel_lane import drive_kernel  # it needs this module

            return drive_kernel(self.exercise, self.obj, index, case, seconds)
        before, given = copied(case), copied(case)
        with recorded_output() as record:
            try:
                with time_limit(seconds):
                    observations = plain(item.drive(self.parts, given))
                    changed = tuple(name for name in case if not same(before[name], given.get(name)))
                report = Report(Ending.OBSERVED, observations, changed=changed)
            except TimeLimitExceeded:
                report = Report(Ending.TIMED_OUT)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit of the learner's code is a crash, not an exit
                report = self.describe_error(error)
        return Report(report.ending, report.observations, report.message, report.error, report.changed, str(record))

    def describe_error(self, error: BaseException) -> Report:
        """Put an error into words: the learner's line if there is one."""
        name = mro_of(type(error))[0].__name__
        if isinstance(error, ObservationError):
            return Report(Ending.CRASHED, message=f"what your code returned is not looked at: {error}", error=name)
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename in self.files or not is_library(frame.filename)]
        if isinstance(error, NotImplementedError) and own and own[-1] is frames[-1]:
            other = self.other_owner(error)
            if not other:
                return Report(Ending.STUB, message=f"`{own[-1].name}` is still the stub", error=name)
            message = f"your {self.exercise.name} uses `{other}`, which is still a stub"
            return Report(Ending.CRASHED, message=message, error=name)
        words = f"{name}: {text_of(error)}".rstrip(": ")
        if own:
            line = f"line {own[-1].lineno} of your code (in `{own[-1].name}`): {own[-1].line}"
            return Report(Ending.CRASHED, message=f"{words}, in {line}", error=name)
        return Report(Ending.CRASHED, message=f"{words}, while using what your code returned or left", error=name)

    def other_owner(self, error: BaseException) -> str:
        """The function that an error was raised in, if it is not of this exercise's own cell; else empty."""
        code = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
        owner = code.co_qualname.rpartition("<locals>.")[2].rpartition(".")[0]
        bases = {base.__name__ for base in mro_of(self.obj)} if isinstance(self.obj, type) else set()
        is_other_part = owner in vars(self.parts) and owner not in {self.exercise.name, *bases}
        if code.co_filename in self.files and not is_other_part:
            return ""
        return f"{owner}.{code.co_name}" if owner else code.co_name


def files_of(obj: Any) -> set[str]:
    """The files (or notebook cells) in which an object's functions were written."""
    return {code.co_filename for code in codes_of(obj)}


LIBRARY_FOLDERS = tuple(
    f"{folder}/"
    for folder in {
        project_root() / "tinyllm",
        project_root() / "grader",
        *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)


def is_library(filename: str) -> bool:
    """Whether a frame's file is Python's, a package's or the course's own, and not the learner's."""
    return filename.startswith("<frozen") or str(Path(filename).resolve()).startswith(LIBRARY_FOLDERS)


def text_of(error: BaseException) -> str:
    """An error's message, cut; the learner's own `__str__` may fail too."""
    try:
        text = str(error)
    except Exception:
        return ""
    return text if len(text) <= 300 else text[:296] + " ..."


# ---------------------------------------------------------------- copies


def copied(value: Any) -> Any:
    """A deep copy of a case as the wire gives it too: tuples become lists, tensors keep their strides."""
    if isinstance(value, Tensor):
        extent = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
        if value.numel() == 0:
            return value.clone()
        return value.as_strided((extent,), (1,)).clone().as_strided(value.shape, value.stride())
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [copied(item) for item in value]
    return value


def same(a: Any, b: Any) -> bool:
    """Whether two cases are equal in type and value, NaN included; asks nothing of the learner's objects."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        return bool(torch.equal(a, b)) or bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b or (a != a and b != b))
