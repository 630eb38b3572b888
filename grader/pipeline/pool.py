"""The workers that judge submissions on this machine, each with its own sandbox."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from grader.build.own import use_own
from grader.pipeline.work import Worked, WorkItem, judge_submission
from grader.sandbox.command import Level, isolation_here
from grader.sandbox.host import Sandbox
from grader.sandbox.limits import Limits
from grader.workers import Failed, Workers, die_with_parent, serve

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


class Pool:
    """So many workers, as a context manager."""

    def __init__(self, setup: Setup, jobs: int) -> None:
        self.workers = Workers(
            jobs, work, lambda number: (setup, number), [__name__]
        )  # torch and the checks are imported once

    def __enter__(self) -> Pool:
        self.workers.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.workers.__exit__()

    def run(self, items: Iterable[WorkItem]) -> Iterator[Event]:
        """Work on every item: an event when it is given to a worker, and one when it comes back, done or failed."""
        for step in self.workers.run(list(items), TRIES):
            if isinstance(step.answer, Failed):
                yield Event(step.job, error=step.answer.reason)
            else:
                yield Event(step.job, step.answer)


def work(connection: Connection[Any, Any], setup: Setup, number: int) -> None:
    """A worker's life: judge items until the other end goes."""
    torch.set_num_threads(1)
    die_with_parent()
    if setup.own:
        use_own(Path(setup.own))
    try:
        isolation = isolation_here(setup.courses / "common", setup.courses, setup.limits, number)
        with Sandbox(setup.level, isolation) as sandbox:
            serve(connection, lambda item: judge_submission(item, sandbox))
    except Exception as error:
        connection.send(Failed(f"{type(error).__name__}: {error}"))
