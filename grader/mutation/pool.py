"""Worker processes that try answers: one that hangs, dies or takes all memory is replaced, and its answer is caught."""

from __future__ import annotations

import importlib
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch

from grader.mutation.trial import Job, Trial, tried
from grader.sandbox.limits import address_space
from grader.workers import Failed, Workers, die_with_parent, serve

MEMORY = 2 * 2**30  # bytes that a worker may take beside what its imports take
STOP_SECONDS = 5.0  # in which a worker ends what it has started
WARM = "grader.mutation.warm"


def tried_by_workers(jobs: Sequence[Job], num_workers: int) -> Iterator[tuple[int, Trial]]:
    """Try every answer: the number of a job and its result, as they come."""
    with Workers(min(num_workers, len(jobs)), work, preload=[__name__, WARM], patience=STOP_SECONDS) as workers:
        for step in workers.run(jobs):
            if isinstance(step.answer, Failed):
                yield step.number, Trial((), "it ends the process that runs it, or never stops")
            elif step.answer is not None:
                yield step.number, step.answer


def work(connection: Connection[Any, Any]) -> None:
    """A worker's life: try answers until the other end goes."""
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # kernels in Triton's interpreter: the same escapes on every machine
    importlib.import_module(WARM)  # done already, unless this process was forked from another
    die_with_parent()
    if sys.platform == "linux":
        most = address_space() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))  # for each process that it starts, too
    serve(connection, tried)
