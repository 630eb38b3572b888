"""The judge's work: cases go out to the process beside the learner's code, observations come back, marks are kept."""

from __future__ import annotations

import json
import socket
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grader.checks import exercises
from grader.diagnosis import diagnosed
from grader.framework import Case, Exercise
from grader.results import CheckResult
from grader.running import Ending, Report, run
from grader.wire import SilenceError, WireError, decode_report, encode, receive, send

HELLO_SECONDS = 10.0  # to say which exercise it is
GRACE_SECONDS = 5.0  # beyond a property's time limit, for the driver's own alarm to be told
SEND_SECONDS = 10.0


class RemoteDriver:
    """Drives a learner's object in the process at the other end of a connection.

    Once that process has gone silent or wrong, every further case is lost; results so far stand.
    """

    def __init__(self, connection: socket.socket, exercise: Exercise) -> None:
        self.connection = connection
        self.exercise = exercise
        self.lost = ""

    def __call__(self, index: int, case: Case) -> Report:
        """Have one case driven; a process that does not answer is a report too."""
        if self.lost:
            return Report(Ending.LOST, message=f"not checked any more: {self.lost}")
        limit = self.exercise.properties[index].time_limit + GRACE_SECONDS
        try:
            send(self.connection, {"case": encode(case), "property": index}, SEND_SECONDS)
            return decode_report(receive(self.connection, limit).get("report"))
        except SilenceError:
            self.lost = "your code did not come back in time"
            return Report(Ending.TIMED_OUT)
        except WireError as error:
            self.lost = f"the process that ran your code is lost ({error})"
            return Report(Ending.LOST, message=self.lost)


class Judge:
    """The marks of one submission. Alone here are the seed, the cases, the expected values and the mutants."""

    def __init__(self, seed: int, out: Path, known: Mapping[str, Exercise] | None = None) -> None:
        """`out` is the file for the results; `known` are the exercises by name, the course's by default."""
        self.seed = seed
        self.out = out
        self.exercises = exercises() if known is None else known
        self.results: dict[str, CheckResult] = {}
        self.errors: dict[str, str] = {}
        self.save()

    def hear(self, connection: socket.socket) -> None:
        """Judge one exercise over a connection. The first attempt counts; a later one is told its result."""
        try:
            name = receive(connection, HELLO_SECONDS).get("exercise")
            if not isinstance(name, str) or name not in self.exercises:
                send(connection, {"error": "the judge knows no exercise of this name"}, SEND_SECONDS)
                return
            if name not in self.results:
                self.results[name] = self.judged(name, connection)
                self.save()
            answer = {"result": self.results[name].without_inputs().to_dict()}
            send(connection, answer, SEND_SECONDS)
        except WireError:  # whoever it was has gone; the marks are kept
            return
        except Exception:  # a fault of the course's own, never of the submission
            traceback.print_exc(file=sys.stderr)
            self.errors[str(name)] = traceback.format_exc(limit=-1)
            self.save()

    def judged(self, name: str, connection: socket.socket) -> CheckResult:
        """The result of an exercise, with its diagnosis."""
        exercise = self.exercises[name]
        return diagnosed(exercise, run(exercise, self.seed, RemoteDriver(connection, exercise)))

    def save(self) -> None:
        """Write everything known so far, whole or not at all."""
        data: dict[str, Any] = {
            "results": {name: result.to_dict() for name, result in self.results.items()},
            "errors": self.errors,
        }
        temporary = self.out.with_name(self.out.name + ".tmp")
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.out)
