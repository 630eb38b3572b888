"""The hidden check of a graded notebook: fresh cases, judged by another process where there is one."""

from __future__ import annotations

import os
import secrets
import socket
from typing import Any

from grader.diagnosis import diagnosed
from grader.framework import Exercise
from grader.learner import exercise_of
from grader.results import CheckResult
from grader.running import Ending, LocalDriver, Report, run
from grader.usage import ShortError, UsageError
from grader.wire import WireError, decode, encode_report, receive, send
from tinyllm.parts import is_reference

SECONDS = 120.0  # the judge may be busy with another exercise, or starting


class JudgeUnreachable(ShortError):
    """The judge named in the environment does not answer; grading must be run again."""


def check_hidden(obj: Any) -> float:
    """Check an answer on hidden cases, print the tick list without them, and return the points.

    The judge at $GRADER_JUDGE draws the cases and keeps the marks. Without one this process does both, with the seed
    in $GRADER_SECRET_SEED or a fresh one.

    Raises:
        UsageError: this is no answer to an exercise, or the course's own one.
        JudgeUnreachable: there should be a judge, and it does not answer.
    """
    exercise = exercise_of(obj)
    if is_reference(obj):
        raise UsageError(f"this {exercise.name} is the course's own, imported after your answer; it earns nothing")
    address = os.environ.get("GRADER_JUDGE")
    if address:
        result = judged_elsewhere(address, exercise, obj)
    else:
        seed = int(os.environ.get("GRADER_SECRET_SEED") or secrets.randbits(32))
        result = diagnosed(exercise, run(exercise, seed, LocalDriver(exercise, obj))).without_inputs()
    print(result)
    return float(result.points)


def judged_elsewhere(address: str, exercise: Exercise, obj: Any) -> CheckResult:
    """The result of the judge at the Unix socket `address`."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except OSError as error:
            raise JudgeUnreachable(f"the judge of {exercise.name} does not answer ({error})") from None
        return converse(connection, exercise, obj)


def converse(connection: socket.socket, exercise: Exercise, obj: Any) -> CheckResult:
    """Drive the cases that the judge sends until it sends the result."""
    driver = LocalDriver(exercise, obj)
    try:
        send(connection, {"exercise": exercise.name}, SECONDS)
        while "case" in (message := receive(connection, SECONDS)):
            answer(connection, driver(message["property"], decode(message["case"])))
    except WireError as error:
        raise JudgeUnreachable(f"the judge of {exercise.name} does not answer ({error})") from None
    if "result" not in message:
        raise JudgeUnreachable(f"the judge of {exercise.name} sent no result ({message.get('error', 'no reason')})")
    return CheckResult.from_dict(message["result"])


def answer(connection: socket.socket, report: Report) -> None:
    """Send a report; observations that cannot be sent are reported as such."""
    try:
        send(connection, {"report": encode_report(report)}, SECONDS)
    except WireError:
        words = "what your code returned is too large or too strange to be sent to the judge"
        send(connection, {"report": encode_report(Report(Ending.CRASHED, message=words))}, SECONDS)
