"""What runs in a jail: the student's cells one after the other, then the cases that the judge sends.

Nothing here is trusted by the other side. It is told which cell runs, so that it knows which one to leave out when
nothing more comes, and it gets observations; the marks are made from those alone.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import socket
import traceback
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from grader.framework import exercise_in
from grader.running import Ending, LocalDriver, Report
from grader.running.limits import recorded_output
from grader.running.report import text_of
from grader.running.wire import WireError, decode, encode_report, receive, send
from grader.usage import unusable
from tinyllm.parts import all_parts, is_reference

SECONDS = 3600.0  # the judge ends the jail long before


def prepare_shell() -> None:
    """Make the shell that runs cells as a notebook does, magics included. It keeps no history and prints no errors."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "NoColor"
    config.InteractiveShell.cache_size = 0
    shell = InteractiveShell.instance(config=config)
    vars(shell)["_showtraceback"] = lambda *_: None  # errors are reported as text
    vars(shell)["_tee"] = lambda channel: contextlib.nullcontext()  # it keeps all that a cell prints, without end


def work(connection: socket.socket) -> None:
    """Run one job: its cells and, where it names an exercise, the cases that come for it."""
    os.chdir("/tmp")
    shell = InteractiveShell.instance()
    shell.user_module.__dict__.update(__name__="__main__")
    job = receive(connection, SECONDS)
    name = job.get("exercise")
    # Looked up before a cell could put another in its place.
    exercise = None if name is None else exercise_in(job["module"], name)
    references = {} if job.get("exercise") is None else {name: part.reference for name, part in all_parts().items()}
    for cell in job["cells"]:
        send(connection, {"cell": cell["id"]}, SECONDS)
        printed, error = run_cell(shell, cell["source"])
        send(connection, {"ran": cell["id"], "printed": printed, "error": error}, SECONDS)
        if cell["answers"] in references and cell["answers"] != job["exercise"]:
            shell.user_ns[cell["answers"]] = references[cell["answers"]]
    if exercise is None:
        return
    problem = problem_of(shell.user_ns, exercise.name, job["kind"])
    if problem:
        send(connection, {"failed": problem}, SECONDS)
        return
    if exercise.in_triton:
        run_kernels_here()
    send(connection, {"ready": True}, SECONDS)
    drive(connection, LocalDriver(exercise, shell.user_ns[exercise.name], job["longest"]))


def run_cell(shell: InteractiveShell, source: str) -> tuple[str, str]:
    """Run a cell.

    Returns:
        What it printed, cut, and the error that ended it in words (empty when none did).
    """
    with recorded_output() as record:
        result = shell.run_cell(source, store_history=True)
    error = result.error_before_exec or result.error_in_exec
    return str(record), "" if error is None else in_words(error)


def in_words(error: BaseException) -> str:
    """An error as one line: its name, its message, and the line of the cell."""
    text = f"{type(error).__name__}: {text_of(error)}".rstrip(": ")
    text = re.sub(r"<ipython-input-[^>]*>, ", "", text)  # of a SyntaxError, which names the cell's file
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("<ipython-input")]
    return f"{text}, in line {frames[-1].lineno}: {frames[-1].line}" if frames else text


def problem_of(names: dict[str, Any], name: str, kind: str) -> str:
    """Why what a cell left under an exercise's name is no answer; empty when it is one."""
    if name not in names:
        return f"your notebook defines no {name}"
    obj = names[name]
    if is_reference(obj):
        return f"this {name} is the course's own, imported in place of an answer"
    return unusable(name, kind, obj)


def run_kernels_here() -> None:
    """Have kernels run in forks of the jail, which needs no process beside it as a notebook does."""
    importlib.import_module("grader.running.kernel_client").use_host(
        importlib.import_module("grader.running.kernel_host").HereHost()
    )


def drive(connection: socket.socket, driver: LocalDriver) -> None:
    """Drive the cases that come until the other end goes."""
    while True:
        try:
            message = receive(connection, SECONDS)
        except WireError:
            return
        report = driver(message["property"], decode(message["case"]))
        try:
            send(connection, {"report": encode_report(report)}, SECONDS)
        except WireError:
            words = "what your code returned is too large or too strange to be sent to the judge"
            send(connection, {"report": encode_report(Report(Ending.CRASHED, message=words))}, SECONDS)
