"""The sandbox's self-test: code that tries to break each promise, run as a submission would be.

Every attack is a cell that prints HELD or OPEN with what it saw; for some the proof is looked for outside. Nothing
here does harm where a promise is broken: signals are only asked about, and what is written is removed.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from grader.build.course import days
from grader.pipeline.courses import write_courses
from grader.running.wire import WireError, receive, send
from grader.sandbox.command import Level, isolation_here
from grader.sandbox.host import Sandbox, find_level
from grader.sandbox.limits import Limits
from grader.selftest.attacks import ATTACKS, DAEMON, DEAF, MEMORY_TOGETHER
from grader.usage import UsageError

LIMITS = Limits(memory_mib=512, disk_mib=32, processes=32)
CELL_SECONDS = 30.0
EXERCISE = "BlockAllocator"


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise: whether it held, and what was seen."""

    promise: str
    held: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Findings:
    """Every promise at one level."""

    level: Level
    promises: tuple[Finding, ...]

    @property
    def all_hold(self) -> bool:
        """Whether none is broken."""
        return all(finding.held for finding in self.promises)


@dataclass(frozen=True, slots=True)
class Outside:
    """What attacks are aimed at: things outside the sandbox, made for them alone."""

    secret: Path  # a file like the gradebook, which anybody may read
    target: Path  # a file like another student's work, which anybody may write
    port: int
    marker: str
    builds: Path

    def names(self) -> dict[str, object]:
        """For the sources of attacks."""
        return {
            "SECRET": str(self.secret),
            "TARGET": str(self.target),
            "PORT": self.port,
            "MARKER": self.marker,
            "BUILDS": str(self.builds),
            "HOST": os.getpid(),
        }


def run_selftest(level: str | None = None) -> Findings:
    """Try every attack at a level, the best that works here by default.

    Raises:
        UsageError: there is no such level.
        SandboxError: no level, or not this one, works here.
    """
    if level is not None and level not in list(Level):
        raise UsageError(f"there is no level {level!r}; the levels are {', '.join(Level)}")
    with tempfile.TemporaryDirectory(prefix="selftest-") as temporary, outside(Path(temporary)) as things:
        write_courses(things.builds, [day for day in days() if EXERCISE in day.exercises])
        isolation = isolation_here(things.builds / "common", things.builds, LIMITS)
        wanted = None if level is None else Level(level)
        chosen = find_level(isolation, wanted, unsafe=wanted is Level.NONE)
        os.environ["TINYLLM_SELFTEST"] = things.marker
        try:
            with Sandbox(chosen, isolation) as sandbox:
                return Findings(chosen, tuple(attack_all(sandbox, things)))
        finally:
            del os.environ["TINYLLM_SELFTEST"]


@contextmanager
def outside(folder: Path) -> Iterator[Outside]:
    """Things to aim at, made so that the rights of files alone would not protect them."""
    folder.chmod(0o755)
    secret, target, builds = folder / "gradebook.txt", folder / "other-student.txt", folder / "builds"
    for path in (secret, target):
        path.write_text("secret\n", encoding="utf-8")
        path.chmod(0o666)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield Outside(secret, target, server.getsockname()[1], f"marker-{secrets.token_hex(8)}", builds)


def attack_all(sandbox: Sandbox, things: Outside) -> Iterator[Finding]:
    """Try to break every promise."""
    names = "".join(f"{name} = {value!r}\n" for name, value in things.names().items())
    for promise, source in ATTACKS.items():
        held, seen = told(sandbox, names + source)
        yield Finding(promise, held, seen)
    changed = things.target.read_text(encoding="utf-8") != "secret\n"
    yield Finding("nothing outside has changed", not changed, "looked for from outside")
    yield by_proof("memory of all processes together is limited", sandbox, names + MEMORY_TOGETHER, memory_ended)
    yield by_proof("nothing lives on when a jail ends", sandbox, names + DAEMON, lambda _: not alive(things.marker))
    yield stops(sandbox)


def told(sandbox: Sandbox, source: str) -> tuple[bool, str]:
    """Run an attack that says itself what it reached."""
    with sandbox.jail(EXERCISE) as connection:
        try:
            send(connection, {"cells": [{"id": "attack", "source": source, "answers": ""}]}, CELL_SECONDS)
            receive(connection, CELL_SECONDS)
            message = receive(connection, CELL_SECONDS)
        except WireError as error:
            lost = f"the attack did not come back ({error})"
        else:
            words = str(message.get("printed", "")).strip()
            return words.startswith("HELD"), words[5:] if words else str(message.get("error"))
    return bool(sandbox.ended_for), sandbox.ended_for or lost


def by_proof(promise: str, sandbox: Sandbox, source: str, proof: Callable[[Sandbox], bool]) -> Finding:
    """Run an attack, and look from outside whether the promise held."""
    _, seen = told(sandbox, source)
    held = proof(sandbox)
    return Finding(promise, held, sandbox.ended_for or seen)


def memory_ended(sandbox: Sandbox) -> bool:
    """Whether the last jail was ended for its memory."""
    return "memory" in sandbox.ended_for


def alive(marker: str) -> bool:
    """Whether any process on this machine has the marker as its name."""
    time.sleep(0.2)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(marker.encode()):
                return True
        except OSError:
            continue
    return False


def stops(sandbox: Sandbox) -> Finding:
    """Whether a jail whose code ignores every signal ends when it is closed."""
    start = time.monotonic()
    with sandbox.jail(EXERCISE) as connection:
        send(connection, {"cells": [{"id": "attack", "source": DEAF, "answers": ""}]}, CELL_SECONDS)
        receive(connection, CELL_SECONDS)
        time.sleep(0.3)
    seconds = time.monotonic() - start
    return Finding("code that ignores every signal is ended", seconds < 10, f"after {seconds:.1f} s")


def report(findings: Findings) -> Table:
    """The findings for a terminal."""
    user = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    table = Table(title=f"Sandbox: {findings.level}, started by {user}", title_justify="left", box=None, pad_edge=False)
    for column in ("promise", "", "seen"):
        table.add_column(column, overflow="fold")
    for finding in findings.promises:
        state = "[green]holds[/]" if finding.held else "[red]OPEN[/]"
        table.add_row(finding.promise, state, finding.seen[:90])
    return table
