"""The side outside: finds the level of sandbox that this machine allows, and opens jails."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from grader.sandbox.command import Isolation, Level, has_programs, readable_answers, zygote_command, zygote_environment
from grader.sandbox.jail import COMMON
from tinyllm.errors import TinyLLMError

START_SECONDS = 120.0  # torch from a cold disk
ANSWER_SECONDS = 30.0
REFUSAL = (
    "this machine has no sandbox: bubblewrap is missing or not permitted, and the kernel allows no namespaces either "
    "({reason}). Install bubblewrap (Debian, Ubuntu: `sudo apt install bubblewrap`), or in a container allow user "
    "namespaces (--security-opt seccomp=unconfined). --unsafe-no-sandbox runs submissions with your own rights: only "
    "for code of people whom you trust."
)


class SandboxError(TinyLLMError):
    """The sandbox cannot be had or does not answer. The message says why."""


class Sandbox:
    """A warmed zygote in its isolation, as a context manager. One jail at a time.

    Attributes:
        level: what holds the submissions.
    """

    def __init__(self, level: Level, isolation: Isolation, warm: bool = True) -> None:
        """A zygote that is not `warm` starts at once, to see whether it starts."""
        self.level = level
        self.isolation = isolation
        self.warm = warm
        self.ended_for = ""

    def __enter__(self) -> Self:
        """Start the zygote and wait until it is warm.

        Raises:
            SandboxError: it does not start, or no jail can be made.
        """
        self.log = tempfile.TemporaryFile()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            course = str(Path(__file__).parents[2]) if self.in_python else self.isolation.course
            command = zygote_command(self.level, self.isolation, theirs.fileno(), self.warm)
            try:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=self.log,
                    stderr=self.log,
                    pass_fds=[theirs.fileno()],
                    env=zygote_environment(course, self.isolation.limits.gpu),
                    start_new_session=True,
                )
            except OSError as error:
                self.control.close()
                raise SandboxError(f"{command[0]} cannot be started: {error}") from None
        try:
            self.answer(START_SECONDS)
            with self.jail(COMMON):
                pass
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def in_python(self) -> bool:
        """Whether our own package makes the isolation, and must then be importable outside of it."""
        return self.level is Level.UNSHARE

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End the zygote, and whatever is open."""
        self.control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()
        self.log.close()

    @contextmanager
    def jail(self, build: str) -> Iterator[socket.socket]:
        """A fresh jail that sees one build; the socket to what runs in it.

        Raises:
            SandboxError: no jail can be made.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                socket.send_fds(self.control, [json.dumps({"open": build}).encode()], [theirs.fileno()])
            self.answer(ANSWER_SECONDS)
            try:
                yield ours
            finally:
                self.control.sendall(b'{"close": true}')
                self.ended_for = str(self.answer(ANSWER_SECONDS).get("ended_for", ""))

    def answer(self, seconds: float) -> dict[str, Any]:
        """What the zygote says next.

        Raises:
            SandboxError: it says nothing, or that something failed.
        """
        self.control.settimeout(seconds)
        try:
            data = self.control.recv(65536)
        except OSError as error:
            data = b""
            reason = str(error)
        else:
            reason = "it ended"
        if not data:
            raise SandboxError(f"the sandbox ({self.level}) does not answer: {self.last_words() or reason}")
        message: dict[str, Any] = json.loads(data)
        if "error" in message:
            raise SandboxError(f"the sandbox ({self.level}) can make no jail: {message['error']}")
        return message

    def last_words(self) -> str:
        """The end of what the zygote printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])[-600:]


def find_level(isolation: Isolation, wanted: Level | None = None, unsafe: bool = False) -> Level:
    """The best level that really works here, found by starting it.

    Args:
        wanted: try this level alone.
        unsafe: take no sandbox where nothing else works.

    Raises:
        SandboxError: none works, and `unsafe` is off.
    """
    reasons = []
    if (seen := readable_answers(isolation)) and wanted is not Level.NONE and not unsafe:
        raise SandboxError(
            f"submissions could read the course's answers in {seen[0]}, which lies among the system's own files: keep "
            "the checkout elsewhere (in /srv, /opt or a home) and install it with `pip install -e`"
        )
    for level in [wanted] if wanted else [Level.BUBBLEWRAP, Level.UNSHARE]:
        if level is Level.NONE:
            break
        if not has_programs(level) or sys.platform != "linux":
            reasons.append(f"{level}: not installed" if sys.platform == "linux" else f"{level}: for Linux only")
            continue
        try:
            with Sandbox(level, isolation, warm=False):
                return level
        except SandboxError as error:
            reasons.append(str(error))
    if unsafe:
        return Level.NONE
    raise SandboxError(REFUSAL.format(reason="; ".join(reasons) or "none was wanted"))
