"""The process in which kernels of answers run: `python -m grader.running.kernel_host FD`, an end of a socket pair.

It takes one case after another until the socket ends. In Triton's interpreter each answer gets a fork of its own: a
wild access ends that fork alone, and what it has overwritten is met by nobody else. A process that has used CUDA cannot
be forked, so compiled kernels run in this process itself, which ends after an error of CUDA's; the other side starts a
new one.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from functools import lru_cache
from types import TracebackType
from typing import Any

import torch

from grader.framework import Exercise, properties_in
from grader.running.interpreter import make_faster, rewrite_shared_functions
from grader.running.kernel_access import watch_kernels
from grader.running.local import LocalDriver
from grader.running.report import Ending, Report, text_of
from grader.running.wire import WireError, decode, decode_report, encode_report, receive, send
from tinyllm.kernels.runtime import INTERPRETED
from tinyllm.parts import all_parts, references
from tinyllm.recorded import run_alone

FOREVER = 10.0**7  # seconds to wait for the next case
SEND_SECONDS = 60.0
KEPT_FORKS = 3  # a diagnosis drives an answer and what is like it by turns


class HostDriver(LocalDriver):
    """Drives in this process, and puts errors out of Triton's interpreter into the learner's terms."""

    def describe_error(self, error: BaseException) -> Report:
        """As in LocalDriver, but of the error that the interpreter has wrapped up."""
        while type(error).__name__ == "InterpreterError" and error.__cause__ is not None:
            error = error.__cause__.with_traceback(joined(error.__traceback__, error.__cause__.__traceback__))
        report = super().describe_error(error)
        if not isinstance(error, NameError):
            return report
        return Report(
            report.ending,
            message=f"{report.message}. The cell is checked alone: what it uses must be imported or written in it",
            error=report.error,
        )


def joined(outer: TracebackType | None, inner: TracebackType | None) -> TracebackType | None:
    """One traceback of two: the learner's line may be in the outer one, where a helper of the course has failed."""
    last = outer
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return inner
    last.tb_next = inner
    return outer


class Fork:
    """A fork of this process that drives the cases of one answer."""

    def __init__(self, request: dict[str, Any]) -> None:
        """Fork for the answer of this request."""
        self.answer = (request["name"], request["source"])
        self.connection, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.connection.close()
                serve_here(theirs)
            finally:
                os._exit(0)
        theirs.close()

    def driven(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request, which the fork may not survive."""
        try:
            send(self.connection, request, SEND_SECONDS)
            return receive(self.connection, FOREVER)
        except WireError:
            status = self.end()
            name, message = "exit", "your code ended Python"
            if os.WIFSIGNALED(status):
                name = signal.Signals(os.WTERMSIG(status)).name
                message = f"your kernel ended Python ({name}): it reads or writes far outside its tensors"
            return {"report": encode_report(Report(Ending.CRASHED, message=message, error=name))}

    @property
    def open(self) -> bool:
        """Whether it can be asked."""
        return self.connection.fileno() >= 0

    def end(self) -> int:
        """End it, if it has not ended, and return its status."""
        self.connection.close()  # it ends at this, unless it hangs
        os.kill(self.pid, signal.SIGKILL)
        return os.waitpid(self.pid, 0)[1]


class Forks:
    """Drives each answer in a fork of its own; those of the latest answers are kept."""

    def __init__(self) -> None:
        self.forks: list[Fork] = []  # the latest last

    def driven(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request."""
        fork = self.taken(request["name"], request["source"]) or Fork(request)
        self.forks.append(fork)
        if len(self.forks) > KEPT_FORKS:
            self.forks.pop(0).end()
        answer = fork.driven(request)
        if not fork.open:
            self.forks.remove(fork)
        return answer

    def taken(self, *answer: str) -> Fork | None:
        """The fork of this answer, taken out of its place; None where there is none."""
        for number, fork in enumerate(self.forks):
            if fork.answer == answer:
                return self.forks.pop(number)
        return None

    def end(self) -> None:
        """End the forks that there are."""
        while self.forks:
            self.forks.pop().end()


class HereHost:
    """A host that is no process of its own: for one that is thrown away itself, as a room of the sandbox is."""

    alive = True

    def __init__(self) -> None:
        prepare()
        self.forks = Forks()

    def ask(self, request: dict[str, Any], seconds: float) -> Report:
        """Have one case driven. The time limit of `seconds` is the request's own."""
        return decode_report(self.forks.driven(request)["report"]) if INTERPRETED else driven(request)

    def stop(self) -> None:
        """End what it has forked."""
        self.forks.end()


def serve_in_forks(connection: socket.socket) -> None:
    """Answer requests until the other side has gone, each answer in a fork of its own."""
    forks = Forks()
    while request := next_request(connection):
        send(connection, forks.driven(request), SEND_SECONDS)


def serve_here(connection: socket.socket) -> None:
    """Answer requests until the other side has gone or CUDA has failed, after which this process is of no use."""
    while request := next_request(connection):
        report = driven(request)
        send(connection, {"report": encode_report(report)}, SEND_SECONDS)
        if "CUDA error" in report.message:
            return


def next_request(connection: socket.socket) -> dict[str, Any] | None:
    """The next request; None when the other side has gone."""
    try:
        return receive(connection, FOREVER)
    except WireError:
        return None


def driven(request: dict[str, Any]) -> Report:
    """Drive one case."""
    properties = properties_in(request["module"], request["exercise"])
    exercise = Exercise(request["exercise"], "function", properties)  # which is driven here
    index = [item.sentence for item in exercise.properties].index(request["sentence"])
    try:
        answer = load_answer(request["exercise"], request["name"], request["source"])
    except Exception as error:  # of the learner's cell, such as a kernel that Triton refuses to read
        return Report(Ending.CRASHED, message=f"your cell fails: {text_of(error)}", error=type(error).__name__)
    return HostDriver(exercise, answer, request["seconds"])(index, decode(request["case"]))


@lru_cache(maxsize=1)
def load_answer(exercise: str, name: str, source: str) -> Any:
    """The function called `name` of a cell, which is run once, as in a notebook; the reference where is no source."""
    if not source:
        return all_parts()[exercise].reference
    return run_alone(source, name, references())


def prepare() -> None:
    """Get this process ready to run kernels."""
    torch.set_num_threads(1)
    references()  # imports the kernels before the first fork
    if INTERPRETED:
        make_faster()
        watch_kernels()
    # What `torch.empty` gives is NaN from now on: a kernel that reads what none has written does not get away with it.
    torch.set_deterministic_debug_mode("warn")  # `use_deterministic_algorithms` would import torch's compiler first


def main() -> None:
    """Get ready and serve."""
    prepare()
    if INTERPRETED:
        rewrite_shared_functions()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        send(connection, {"interpreted": INTERPRETED}, SEND_SECONDS)
        (serve_in_forks if INTERPRETED else serve_here)(connection)


if __name__ == "__main__":
    main()
