"""Driving answers that launch Triton kernels: in a process of their own, which may die of what a kernel does.

That process (kernel_host.py) is started once and kept. It runs kernels compiled where there is CUDA, and in Triton's
interpreter elsewhere. Only the source of the answer's cell goes there.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from functools import lru_cache
from typing import Any, Protocol

import torch

from grader.framework import Case, Exercise
from grader.running.report import Ending, Report
from grader.running.wire import SilenceError, WireError, decode_report, encode, receive, send
from tinyllm.errors import WorkspaceError
from tinyllm.parts import is_reference
from tinyllm.paths import project_root
from tinyllm.recorded import source_of

START_SECONDS = 120.0  # torch and Triton are imported, perhaps on a busy machine
GRACE_SECONDS = 10.0  # beyond a case's time limit, for the host's own alarm to be told
SEND_SECONDS = 10.0


class KernelHostError(Exception):
    """The process that runs kernels does not start. The message has its last words."""


class Host(Protocol):
    """What runs kernels."""

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""

    def ask(self, request: dict[str, Any], seconds: float) -> Report:
        """Have one case driven."""

    def stop(self) -> None:
        """End it."""


class KernelHost:
    """The process that runs kernels."""

    def __init__(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            KernelHostError: it does not start.
        """
        self.owner = os.getpid()
        self.words = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process runs
        self.connection, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "grader.running.kernel_host", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self.words,
                stderr=self.words,
                cwd=project_root(),
                env=host_environment(),
                start_new_session=True,  # so that it can be ended together with what it has forked
            )
        try:
            receive(self.connection, START_SECONDS)
        except WireError as error:
            words = self.last_words()
            self.stop()
            raise KernelHostError(f"the process that runs kernels did not start ({error}): {words}") from None

    def ask(self, request: dict[str, Any], seconds: float) -> Report:
        """Have one case driven. A process that does not answer is ended, and is a report too."""
        try:
            send(self.connection, request, SEND_SECONDS)
            return decode_report(receive(self.connection, seconds + GRACE_SECONDS).get("report"))
        except SilenceError:
            self.stop()
            return Report(Ending.TIMED_OUT)
        except WireError:
            self.stop()
            return Report(Ending.LOST, message=f"the process that ran your kernel ended: {self.last_words()}")
        except BaseException:  # interrupted: its answer must not be taken for the next one's
            self.stop()
            raise

    def last_words(self) -> str:
        """The end of what it printed."""
        if self.words.closed:
            return ""
        self.words.seek(0)
        return self.words.read().decode(errors="replace").strip()[-500:]

    @property
    def alive(self) -> bool:
        """Whether it can be asked: it runs, and is this process's own and not that of one which has forked this."""
        return self.owner == os.getpid() and self.connection.fileno() >= 0 and self.process.poll() is None

    def stop(self) -> None:
        """End it, and what it has forked."""
        self.connection.close()
        if self.owner == os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


_hosts: list[Host] = []  # the one of this process, once there is one


def kernel_host() -> Host:
    """The running host; started when there is none.

    Raises:
        KernelHostError: it does not start.
    """
    if not _hosts or not _hosts[-1].alive:
        use_host(KernelHost())
    return _hosts[-1]


def use_host(host: Host) -> None:
    """Have kernels run by this host from now on."""
    stop_host()
    _hosts.append(host)


@atexit.register
def stop_host() -> None:
    """End the host, if there is one."""
    while _hosts:
        _hosts.pop().stop()


def host_environment() -> dict[str, str]:
    """Our environment, with Triton's interpreter on where there is no GPU, and off where there is one."""
    others = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    interpret = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    return {**others, **interpret, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


# ---------------------------------------------------------------- one case


def drive_kernel(exercise: Exercise, obj: Any, index: int, case: Case, seconds: float) -> Report:
    """Have one case of the property at `index` driven in the host.

    Args:
        seconds: time limit of the case.
    """
    try:
        source = "" if is_reference(obj) else source_of(obj)
        host = kernel_host()
    except WorkspaceError as error:
        return Report(Ending.CRASHED, message=str(error), error="WorkspaceError")
    stub = stubbed_function(source)
    if stub:
        return Report(Ending.STUB, message=f"`{stub}` is still the stub", error="NotImplementedError")
    request = {
        "module": exercise.module,
        "exercise": exercise.name,
        "name": obj.__name__,
        "source": source,
        "sentence": exercise.properties[index].sentence,
        "case": encode(case),
        "seconds": seconds,
    }
    return host.ask(request, seconds)


@lru_cache(maxsize=64)
def stubbed_function(source: str) -> str:
    """The first function whose whole body, but for its docstring, raises NotImplementedError; empty if none does.

    Looked for in the text: a kernel with a `raise` in it does not compile.
    """
    try:
        functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    except SyntaxError:
        return ""
    for function in functions:
        body = function.body[1:] if ast.get_docstring(function) is not None else function.body
        if body and isinstance(body[0], ast.Raise) and "NotImplementedError" in ast.unparse(body[0]):
            return function.name
    return ""
