"""The same work items on a Ray cluster: an actor for each worker, with its own courses and sandbox where it runs.

The course must be installed on every machine, at the same version. Students' files stay with the one that grades.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from grader.pipeline.pool import TRIES, Event, Setup
from grader.pipeline.work import Worked, WorkItem, judge_submission
from tinyllm.errors import TinyLLMError


class RayError(TinyLLMError):
    """Ray is not installed, or the cluster does not answer. The message says what to do."""


class RayWorker:
    """A worker on some machine of the cluster."""

    def __init__(self, setup: Setup, number: int) -> None:
        import torch

        from grader.build.course import gradable_days
        from grader.build.own import use_own
        from grader.pipeline.courses import write_courses
        from grader.sandbox.command import isolation_here
        from grader.sandbox.host import Sandbox, find_level

        torch.set_num_threads(1)
        if setup.own:
            use_own(Path(setup.own))
        self.folder = tempfile.TemporaryDirectory(prefix="courses-")
        courses = Path(self.folder.name)
        write_courses(courses, gradable_days())
        isolation = isolation_here(courses / "common", courses, setup.limits, number)
        level = find_level(isolation, setup.level)  # this machine may lack what the first one has
        self.sandbox = Sandbox(level, isolation).__enter__()

    def judge(self, item: WorkItem) -> Worked:
        """Judge one submission."""
        return judge_submission(item, self.sandbox)

    def stop(self) -> None:
        """End the sandbox and remove the courses."""
        self.sandbox.stop()
        self.folder.cleanup()


class RayPool:
    """Workers on a cluster, as a context manager, with the interface of `Pool`."""

    def __init__(self, setup: Setup, address: str, jobs: int | None) -> None:
        """`jobs` workers; by default one for each core of the cluster.

        Raises:
            RayError: Ray is missing or the cluster does not answer.
        """
        try:
            import ray
        except ImportError:
            raise RayError("--ray needs Ray: pip install 'tinyllm-course[ray]'") from None
        self.ray: Any = ray
        self.setup = setup
        self.started_here = not ray.is_initialized()
        try:
            if self.started_here:
                ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RayError(f"the Ray cluster at {address} does not answer: {error}") from None
        self.jobs = jobs or int(ray.cluster_resources().get("CPU", 1))

    def __enter__(self) -> RayPool:
        resources = {"num_gpus": 1} if self.setup.limits.gpu else {"num_cpus": 1}
        self.actor = self.ray.remote(**resources)(RayWorker)
        self.actors = [self.actor.remote(self.setup, number) for number in range(self.jobs)]
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors:
            try:
                self.ray.get(actor.stop.remote(), timeout=30)
            except Exception:  # it is gone already
                continue
        if self.started_here:
            self.ray.shutdown()

    def run(self, items: Iterable[WorkItem]) -> Iterator[Event]:
        """Work on every item: an event when it is given to a worker, and one when it comes back, done or failed."""
        todo = [(item, 1) for item in items][::-1]
        idle = list(range(self.jobs))
        busy: dict[Any, tuple[int, WorkItem, int]] = {}
        while todo or busy:
            while idle and todo:
                number, (item, attempt) = idle.pop(), todo.pop()
                yield Event(item)
                busy[self.actors[number].judge.remote(item)] = (number, item, attempt)
            done, _ = self.ray.wait(list(busy), num_returns=1)
            for reference in done:
                number, item, attempt = busy.pop(reference)
                try:
                    yield Event(item, self.ray.get(reference))
                except self.ray.exceptions.RayError as error:
                    self.ray.kill(self.actors[number])
                    self.actors[number] = self.actor.remote(self.setup, number)
                    if attempt < TRIES:
                        todo.append((item, attempt + 1))
                    else:
                        yield Event(item, error=str(error).strip().splitlines()[-1])
                idle.append(number)
