"""Who may touch an engine: one thread at a time, and nobody from inside a step."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tinyllm.errors import EngineBusyError


class EngineGuard:
    """Lets one thread at a time at an engine.

    A call waits while another thread's call goes on, and may make further calls itself. A thread that serves others
    keeps the engine between its calls too: all other threads are refused then, since they might wait for ever. A step
    calls functions of its users; what these ask of the engine is refused, since the step is not at its end.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0  # calls of the thread that has the lock, one inside the other
        self._stepping = False
        self._keeper: threading.Thread | None = None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Have the engine for a call.

        Raises:
            EngineBusyError: it is kept by another thread, or this is called from inside a step.
        """
        self._refuse_kept()  # before waiting, and once more when the wait is over
        with self._lock:
            self._refuse_kept()
            if self._stepping:
                raise EngineBusyError(
                    "the engine is in the middle of a step, which called this function (on_delta or allowed_tokens): "
                    "only abort() works from here. Note what is to be done, and do it after the step"
                )
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    @contextmanager
    def step(self) -> Iterator[None]:
        """Have the engine for a step: like `call`, but nothing may be called inside it."""
        with self.call():
            self._stepping = True
            try:
                yield
            finally:
                self._stepping = False

    @contextmanager
    def call_if_free(self) -> Iterator[bool]:
        """Have the engine for a call if no call goes on, not even one of this thread; gives whether that is so."""
        if not self._lock.acquire(blocking=False):
            yield False
            return
        try:
            free = self._depth == 0 and self._keeper in (None, threading.current_thread())
            self._depth += 1
            try:
                yield free
            finally:
                self._depth -= 1
        finally:
            self._lock.release()

    def keep(self, keeper: threading.Thread) -> None:
        """Let `keeper` have the engine until `release`.

        Raises:
            EngineBusyError: a call goes on, or another thread keeps it.
        """
        with self.call_if_free() as free:
            self._refuse_kept()
            if not free:
                raise EngineBusyError(
                    "the engine is in use: wait until generate() or step() has returned, or load a second LLM"
                )
            self._keeper = keeper

    def release(self) -> None:
        """Let others have the engine again."""
        self._keeper = None

    def _refuse_kept(self) -> None:
        if self._keeper not in (None, threading.current_thread()):
            raise EngineBusyError(
                "the engine belongs to an AsyncEngine until its shutdown(): call that one's generate(), shut it down "
                "first, or load a second LLM"
            )
