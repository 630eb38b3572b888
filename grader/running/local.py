"""Driving an answer in this process: errors of the learner's code, in words, end up in the report."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from grader.framework import Case, Exercise
from grader.framework.observe import ObservationError, mro_of, plain
from grader.running.copies import copied, same
from grader.running.kernel_client import drive_kernel
from grader.running.limits import TimeLimitExceeded, recorded_output, time_limit
from grader.running.report import Ending, Report, text_of
from tinyllm.parts import references
from tinyllm.paths import project_root
from tinyllm.recorded import codes_of


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
        if self.exercise.in_triton:
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
