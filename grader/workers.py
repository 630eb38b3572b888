"""Worker processes that take one job after another. One that dies is replaced; they share nothing and hold no files."""

from __future__ import annotations

import multiprocessing
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from typing import Any, Generic, TypeVar

from grader.sandbox import linux

J = TypeVar("J")

Handler = Callable[[Any], Any]  # a job -> its answer
#: What a worker does: called with its connection, it gets ready and calls `serve`.
Life = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no answer."""

    reason: str


@dataclass(frozen=True, slots=True)
class Step(Generic[J]):
    """A job was given to a worker (`answer` is None), or came back."""

    number: int
    job: J
    answer: Any = None


def fork_context(preload: Sequence[str]) -> ForkServerContext:
    """The context that forks workers from a process which has imported these modules once, for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def start_forkserver(preload: Sequence[str]) -> None:
    """Start that process, so that it imports what workers need while this one imports something else."""
    fork_context(preload)
    forkserver.ensure_running()


def serve(connection: Connection[Any, Any], handle: Handler) -> None:
    """Answer jobs until the other end goes; what `handle` raises ends the worker."""
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        answer = handle(job)
        try:
            connection.send(answer)
        except OSError:
            return


def die_with_parent() -> None:
    """End this process when the one that started it ends, however that is."""
    if sys.platform == "linux":
        linux.prctl(linux.PR_SET_PDEATHSIG, 9)


class Worker:
    """A process and the number of the job that it has."""

    def __init__(self, context: ForkServerContext, life: Life, args: tuple[Any, ...], name: str) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=life, args=(theirs, *args), name=name)
        self.process.start()
        theirs.close()
        self.number: int | None = None

    def give(self, number: int, job: Any) -> None:
        """Give it a job; that it has died is noticed when its answer is taken."""
        self.number = number
        try:
            self.connection.send(job)
        except OSError:
            return

    def taken(self) -> Any:
        """Its answer."""
        self.number = None
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return Failed("a worker ended without an answer")

    def stop(self, patience: float) -> None:
        """End it, after so many seconds in which it may end what it has started."""
        self.connection.close()
        if patience:
            self.process.join(patience)
        self.process.kill()
        self.process.join()


class Workers:
    """So many workers, as a context manager. They warm up while the first jobs are being made."""

    def __init__(
        self,
        count: int,
        life: Life,
        args: Callable[[int], tuple[Any, ...]] = lambda number: (),
        preload: Sequence[str] = (),
        patience: float = 0.0,
    ) -> None:
        """Args:
        life: what a worker does, called with its connection and the arguments that `args` gives for its number.
        preload: modules that are imported before workers are forked.
        patience: seconds in which a worker that is stopped may end what it has started.
        """
        self.count = count
        self.patience = patience
        context = fork_context(preload)
        self.start = lambda number: Worker(context, life, args(number), f"grader-{number}")

    def __enter__(self) -> Workers:
        self.workers = [self.start(number) for number in range(self.count)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.stop(self.patience)

    def run(self, jobs: Sequence[J], tries: int = 1) -> Iterator[Step[J]]:
        """Work on every job: a step when it is given to a worker, and one when it comes back, done or failed.

        Args:
            tries: how often in all a job is given to a worker while it fails.
        """
        todo = deque(range(len(jobs)))
        failures: dict[int, int] = {}
        while todo or any(worker.number is not None for worker in self.workers):
            for worker in self.workers:
                if worker.number is None and todo:
                    number = todo.popleft()
                    yield Step(number, jobs[number])
                    worker.give(number, jobs[number])
            ready = wait([worker.connection for worker in self.workers if worker.number is not None])
            for place, worker in enumerate(self.workers):
                if worker.number is None or worker.connection not in ready:
                    continue
                number, answer = worker.number, worker.taken()
                if isinstance(answer, Failed):
                    worker.stop(self.patience)
                    self.workers[place] = self.start(place)
                    failures[number] = failures.get(number, 0) + 1
                    if failures[number] < tries:
                        todo.appendleft(number)
                        continue
                yield Step(number, jobs[number], answer)
