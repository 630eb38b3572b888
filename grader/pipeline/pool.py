"""Workers on this machine: each a process of its own with its own sandbox; they share nothing and hold no files."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from grader.build.own import use_own
from grader.pipeline.forks import fork_context
from grader.pipeline.work import Worked, WorkItem, judge_submission
from grader.sandbox.command import Level, isolation_here
from grader.sandbox.host import Sandbox
from grader.sandbox.limits import Limits

TRIES = 2  # a worker that dies is replaced and its item tried again, so often in all


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker needs to know.

    Attributes:
        level: of the sandbox that works here.
        courses: where the courses are.
        own: folder with exercises of the instructor's own; empty where there are none.
    """

    level: Level
    courses: Path
    limits: Limits
    own: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """An item was given to a worker (`worked` and `error` are empty), or came back."""

    item: WorkItem
    worked: Worked | None = None
    error: str = ""


class _Worker:
    """A worker process and the item that it has."""

    def __init__(self, setup: Setup, number: int) -> None:
        context = fork_context()
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, setup, number), name=f"grader-{number}")
        self.process.start()
        theirs.close()
        self.item: WorkItem | None = None

    def stop(self) -> None:
        """End the process, which holds nothing that could be lost; its sandbox ends with it."""
        self.process.kill()
        self.process.join()
        self.connection.close()


class Pool:
    """So many workers, as a context manager. They warm up while the first items are being made."""

    def __init__(self, setup: Setup, jobs: int) -> None:
        self.setup = setup
        self.jobs = jobs

    def __enter__(self) -> Pool:
        self.workers = [_Worker(self.setup, number) for number in range(self.jobs)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.stop()

    def run(self, items: Iterable[WorkItem]) -> Iterator[Event]:
        """Work on every item: an event when it is given to a worker, and one when it comes back, done or failed."""
        todo = deque(items)
        tries: dict[tuple[str, str], int] = {}
        while todo or any(worker.item for worker in self.workers):
            for worker in self.workers:
                if worker.item is None and todo:
                    worker.item = todo.popleft()
                    yield Event(worker.item)
                    give(worker)
            ready = wait([worker.connection for worker in self.workers if worker.item])
            for number, worker in enumerate(self.workers):
                if worker.connection not in ready or worker.item is None:
                    continue
                item, answer = worker.item, taken(worker.connection)
                worker.item = None
                if isinstance(answer, Worked):
                    yield Event(item, answer)
                    continue
                worker.stop()
                self.workers[number] = _Worker(self.setup, number)
                key = (item.student, item.day)
                tries[key] = tries.get(key, 0) + 1
                if tries[key] < TRIES:
                    todo.appendleft(item)
                else:
                    yield Event(item, error=answer)


def give(worker: _Worker) -> None:
    """Give a worker its item; one that has died is noticed when its answer is taken."""
    try:
        worker.connection.send(worker.item)
    except OSError:
        return


def taken(connection: Connection[Any, Any]) -> Worked | str:
    """What a worker answers; the reason where it failed or died."""
    try:
        answer: Worked | str = connection.recv()
    except (EOFError, OSError):
        return "a worker ended without an answer"
    return answer


def work(connection: Connection[Any, Any], setup: Setup, number: int) -> None:
    """A worker's life: judge items until the other end goes."""
    import torch

    torch.set_num_threads(1)
    if setup.own:
        use_own(Path(setup.own))
    if sys.platform == "linux":
        from grader.sandbox import linux

        linux.prctl(linux.PR_SET_PDEATHSIG, 9)  # it never outlives the process that started it
    try:
        isolation = isolation_here(setup.courses / "common", setup.courses, setup.limits, number)
        with Sandbox(setup.level, isolation) as sandbox:
            while True:
                item = connection.recv()
                connection.send(judge_submission(item, sandbox))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
