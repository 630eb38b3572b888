"""What surrounds a learner's code while it runs: a time limit, and a bounded record of what it prints."""

from __future__ import annotations

import io
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType

MAX_PRINTED = 1500  # characters of a case's output that are kept
REPEAT = 0.5  # seconds after which code that swallowed the alarm gets the next


class TimeLimitExceeded(BaseException):
    """The code took too long. No `except Exception` of the learner's catches it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimitExceeded inside the block after `seconds`.

    Only the main thread of a system with SIGALRM has alarms; elsewhere there is no limit. An alarm that was already
    set (by a test runner) goes on afterwards with the time that it has left.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_alarm(signum: int, frame: FrameType | None) -> None:
        if running:
            raise TimeLimitExceeded

    running = True
    started = time.monotonic()
    old_handler = signal.signal(signal.SIGALRM, on_alarm)
    old_delay, old_interval = signal.setitimer(signal.ITIMER_REAL, seconds, REPEAT)
    try:
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if old_handler is None else old_handler)
        if old_delay:
            left = old_delay - (time.monotonic() - started)
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3), old_interval)


class _Record(io.TextIOBase):
    """A stream that keeps the first MAX_PRINTED characters and counts the rest."""

    def __init__(self) -> None:
        self.kept = ""
        self.dropped = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        room = MAX_PRINTED - len(self.kept)
        self.kept += text[:room]
        self.dropped += max(0, len(text) - room)
        return len(text)

    def __str__(self) -> str:
        return self.kept + (f"\n... and {self.dropped:,} more characters" if self.dropped else "")


@contextmanager
def recorded_output() -> Iterator[_Record]:
    """Take what Python code prints, to stdout or stderr, into a bounded record in place of the screen."""
    record = _Record()
    with redirect_stdout(record), redirect_stderr(record):
        yield record
