"""Worker processes that try answers: one that hangs, dies or takes all memory is replaced, and its answer is caught."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from grader.mutation.trial import Job, Trial, tried

MEMORY = 2 * 2**30  # bytes that a worker may take beside what its imports take


STOP_SECONDS = 5.0  # in which a worker ends what it has started


class Worker:
    """A process and the number of the job that it has."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["grader.mutation.pool", "grader.mutation.warm"])
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs,), name="grader-mutation")
        self.process.start()
        theirs.close()
        self.number: int | None = None

    def give(self, number: int, job: Job) -> None:
        """Have it try an answer; that it has died is noticed when the result is taken."""
        self.number = number
        try:
            self.connection.send(job)
        except OSError:
            return

    def taken(self) -> Trial | None:
        """Its result; None where it has died."""
        try:
            trial: Trial = self.connection.recv()
        except (EOFError, OSError):
            return None
        return trial

    def stop(self) -> None:
        """End it; what it has started ends by itself."""
        self.connection.close()
        self.process.join(STOP_SECONDS)
        self.process.kill()
        self.process.join()


def tried_by_workers(jobs: Sequence[Job], num_workers: int) -> Iterator[tuple[int, Trial]]:
    """Try every answer: the number of a job and its result, as they come."""
    todo = list(enumerate(jobs))[::-1]
    workers = [Worker() for _ in range(min(num_workers, len(todo)))]
    try:
        while todo or any(worker.number is not None for worker in workers):
            for worker in workers:
                if worker.number is None and todo:
                    worker.give(*todo.pop())
            ready = wait([worker.connection for worker in workers if worker.number is not None])
            for index, worker in enumerate(workers):
                if worker.number is None or worker.connection not in ready:
                    continue
                number, trial = worker.number, worker.taken()
                worker.number = None
                if trial is None:
                    worker.stop()
                    workers[index] = Worker()
                yield number, trial or Trial((), "it ends the process that runs it, or never stops")
    finally:
        for worker in workers:
            worker.stop()


def work(connection: Connection[Any, Any]) -> None:
    """A worker's life: try answers until the other end goes."""
    import torch

    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # kernels in Triton's interpreter: the same escapes on every machine
    importlib.import_module("grader.mutation.warm")  # done already, unless this process was forked from another
    if sys.platform == "linux":
        from grader.sandbox import linux

        linux.prctl(linux.PR_SET_PDEATHSIG, 9)  # it never outlives the process that started it
        limit_memory(MEMORY)
    try:
        while True:
            connection.send(tried(connection.recv()))
    except (EOFError, OSError):
        return


def limit_memory(more: int) -> None:
    """Let this process, and each that it starts, take so many bytes more than it has."""
    import resource
    from pathlib import Path

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
