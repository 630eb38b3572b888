"""The work on one submission: its cells run in jails of the sandbox, its answers are judged out here.

A work item is plain data and so is what comes back, so that any worker on any machine gives the same.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from grader.build.course import SETUP_TAG
from grader.checks import find_exercise
from grader.framework import Case, CheckResult, Exercise, Outcome, PropertyResult
from grader.marks.record import CellRun
from grader.mutants.diagnosis import diagnosed
from grader.running import Ending, Report, missing_requirement, run
from grader.running.wire import SilenceError, WireError, decode_report, encode, receive, send
from grader.sandbox.host import Sandbox

SETUP_SECONDS = 180.0  # for a cell of the course's own
SUBMISSION_SECONDS = 600.0
SEND_SECONDS = 10.0
MAX_TEXT = 4000  # characters of what a cell printed, or of its error

WORDS = {Outcome.TIMED_OUT: "it took too long and was left out", Outcome.CRASHED: "it ended Python and was left out"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell to run. `answers` is the exercise whose answer cell it is, or empty."""

    id: str
    source: str
    answers: str = ""
    setup: bool = False


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One submission to be judged.

    Attributes:
        cells: what runs, in order.
        until: for each exercise, how many of the cells come before its check.
        seed: what the hidden cases are drawn from.
    """

    student: str
    day: str
    cells: tuple[Cell, ...]
    until: dict[str, int]
    seed: int


@dataclass(slots=True)
class Worked:
    """What came of a work item.

    Attributes:
        results: by exercise, without the seed.
        left_out: cells that had to be left out, with the reason.
        cells: what the student's cells did, by id.
    """

    sandbox: str
    results: dict[str, CheckResult] = field(default_factory=dict)
    left_out: dict[str, Outcome] = field(default_factory=dict)
    cells: dict[str, CellRun] = field(default_factory=dict)
    seconds: float = 0.0


def work_item(notebook: Any, student: str, day: str, seed: int) -> WorkItem:
    """The work on a notebook that intake has rebuilt."""
    cells: list[Cell] = []
    until = {}
    for cell in notebook.cells:
        grading = cell.metadata.get("nbgrader", {})
        if grading.get("grade") and not grading["solution"]:
            until[cell.id.removeprefix("check-")] = len(cells)
        elif cell.cell_type == "code":
            answers = cell.id if grading.get("solution") else ""
            cells.append(Cell(cell.id, cell.source, answers, SETUP_TAG in cell.metadata.get("tags", [])))
    return WorkItem(student, day, tuple(cells), until, seed)


def judge_submission(item: WorkItem, sandbox: Sandbox) -> Worked:
    """Judge every exercise of a submission.

    Raises:
        SandboxError: the sandbox failed; nothing that a submission does leads here.
    """
    start = monotonic()
    worked = Worked(str(sandbox.level))
    for name in item.until:
        exercise = find_exercise(name)
        with JailDriver(sandbox, exercise, item, worked, start + SUBMISSION_SECONDS) as driver:
            worked.results[name] = judge_exercise(exercise, item.seed, driver)
    worked.seconds = monotonic() - start
    return worked


def judge_exercise(exercise: Exercise, seed: int, driver: JailDriver) -> CheckResult:
    """The result of one exercise; nothing runs where nothing of it can be checked."""
    if any(not missing_requirement(item.requires) for item in exercise.properties):
        driver.begin()
    if driver.problem is not None:
        return unreached(exercise, *driver.problem)
    result = diagnosed(exercise, run(exercise, seed, driver), driver)
    return CheckResult(result.exercise, None, result.properties, result.diagnoses)


class JailDriver:
    """Drives an answer in a jail, as a context manager. A jail that is lost is replaced for the next property.

    Attributes:
        problem: why there is no answer to drive, as outcome and words; None while there is one.
    """

    def __init__(self, sandbox: Sandbox, exercise: Exercise, item: WorkItem, worked: Worked, deadline: float) -> None:
        """What cells do is written to `worked`; nothing starts after `deadline` (of time.monotonic)."""
        self.sandbox = sandbox
        self.limits = sandbox.isolation.limits
        self.exercise = exercise
        self.item = item
        self.worked = worked
        self.deadline = deadline
        self.problem: tuple[Outcome, str] | None = None
        self.connection: socket.socket | None = None
        self.jail = ExitStack()

    def __enter__(self) -> JailDriver:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> str:
        """End the jail; why it had ended by itself, if it had."""
        was_open = self.connection is not None
        self.connection = None
        self.jail.close()
        return self.sandbox.ended_for if was_open else ""

    def begin(self) -> None:
        """Open a jail and run the cells up to the answer, again without each one that ends or blocks it."""
        while self.connection is None and self.problem is None:
            if monotonic() > self.deadline:
                self.problem = Outcome.TIMED_OUT, "there was no time left"
                return
            self.connection = self.jail.enter_context(self.sandbox.jail(self.exercise.name))
            cells = [c for c in self.item.cells[: self.item.until[self.exercise.name]] if not self.skipped(c)]
            culprit = self.run_cells(self.connection, cells)
            if culprit is not None:
                cell, why = culprit
                words = self.leave() or WORDS[why]
                self.worked.left_out[cell.id] = why
                self.worked.cells[cell.id] = CellRun(cell.id, error=words)
                if cell.answers == self.exercise.name:
                    self.problem = why, f"the answer's cell could not be run: {words}"

    def skipped(self, cell: Cell) -> bool:
        """Whether a cell is not run any more."""
        return cell.id in self.worked.left_out and cell.answers != self.exercise.name

    def run_cells(self, connection: socket.socket, cells: Sequence[Cell]) -> tuple[Cell, Outcome] | None:
        """Run cells and get the answer ready; the cell that ended or blocked the jail, if one did."""
        kind, module = self.exercise.kind, self.exercise.module
        plain = [{"id": cell.id, "source": cell.source, "answers": cell.answers} for cell in cells]
        job: dict[str, Any] = {"cells": plain, "exercise": self.exercise.name, "kind": kind, "module": module}
        job["longest"] = self.limits.case_seconds
        cell = cells[-1]
        error = ""
        try:
            send(connection, job, SEND_SECONDS)
            for cell in cells:
                seconds = SETUP_SECONDS if cell.setup else self.limits.cell_seconds
                expect(receive(connection, seconds), "cell", cell.id)
                ran = receive(connection, min(seconds, max(1.0, self.deadline - monotonic())))
                expect(ran, "ran", cell.id)
                done = CellRun(cell.id, text(ran.get("printed")), text(ran.get("error")))
                if cell.answers == self.exercise.name:
                    error = done.error
                if not cell.setup:
                    self.worked.cells.setdefault(cell.id, done)
            message = receive(connection, SETUP_SECONDS)
        except SilenceError:
            return cell, Outcome.TIMED_OUT
        except WireError:
            return cell, Outcome.CRASHED
        if "ready" not in message:
            self.problem = Outcome.CRASHED, error or text(message.get("failed")) or "it left no answer"
            self.leave()
        return None

    def __call__(self, index: int, case: Case) -> Report:
        """Have one case driven; a jail that does not answer is a report too."""
        self.begin()
        if self.connection is None:
            ending = Ending.TIMED_OUT if self.problem and self.problem[0] is Outcome.TIMED_OUT else Ending.LOST
            return Report(ending, message=self.problem[1] if self.problem else "")
        limit = min(self.exercise.properties[index].time_limit, self.limits.case_seconds)
        limit += self.limits.grace_seconds
        try:
            send(self.connection, {"case": encode(case), "property": index}, SEND_SECONDS)
            return decode_report(receive(self.connection, limit).get("report"))
        except SilenceError:
            self.leave()
            return Report(Ending.TIMED_OUT)
        except WireError as error:
            reason = self.leave() or str(error)
            return Report(Ending.LOST, message=f"the process that ran your code is lost: {reason}")


def expect(message: dict[str, Any], name: str, value: str) -> None:
    """Hold a message against the only one that may come now.

    Raises:
        WireError: it is another one.
    """
    if message.get(name) != value:
        raise WireError("a message that does not belong here")


def text(value: Any) -> str:
    """Words from a process that is not trusted."""
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def unreached(exercise: Exercise, outcome: Outcome, reason: str) -> CheckResult:
    """The result of an exercise whose answer could not be driven at all."""
    message = f"{exercise.name} could not be checked. {reason}"[:500]
    properties = tuple(
        PropertyResult(item.sentence, item.weight, outcome, message if number == 0 else "")
        for number, item in enumerate(exercise.properties)
    )
    return CheckResult(exercise.name, None, properties)
