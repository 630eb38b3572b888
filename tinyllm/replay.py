"""Serve a load of timed requests, with one engine or with several side by side on the same machine."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tqdm.auto import tqdm

from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.metrics import RequestMetrics, StepRecord
from tinyllm.engine.request import OutputDelta
from tinyllm.traces import TraceRequest


@dataclass(frozen=True, slots=True)
class TimedRequest:
    """A request and when it comes, in seconds from the beginning of the load."""

    arrival: float
    request: TraceRequest


class Run:
    """One engine's way through a load, on a clock that runs while this engine computes and jumps over idle time.

    Attributes:
        now: seconds on that clock.
        metrics: the times of each request, on that clock, in order of arrival.
        records: the engine's steps, all of them once it was replayed.
    """

    def __init__(self, engine: LLMEngine, load: Sequence[TimedRequest]) -> None:
        self.engine = engine
        self.pending = deque(sorted(load, key=lambda item: item.arrival))
        self.now = 0.0
        self.zero = 0.0  # where the clock's 0 is on the machine's, during a step
        self.metrics: list[RequestMetrics] = []
        self.records: Sequence[StepRecord] = ()

    @property
    def has_unfinished(self) -> bool:
        """Whether a request is still to come or to be served."""
        return bool(self.pending) or self.engine.has_unfinished

    def step(self) -> int:
        """Add the requests whose time has come and compute one step; returns how many requests it has finished."""
        if not self.engine.has_unfinished:
            self.now = max(self.now, self.pending[0].arrival)
        while self.pending and self.pending[0].arrival <= self.now:
            self.add(self.pending.popleft())
        self.zero = time.perf_counter() - self.now
        num_finished = len(self.engine.step())
        self.now = time.perf_counter() - self.zero
        return num_finished

    def add(self, item: TimedRequest) -> None:
        """Queue a request whose tokens' times are written down as they come."""
        times = RequestMetrics(item.arrival)
        self.metrics.append(times)

        def write_down(delta: OutputDelta) -> None:
            times.token_times += [time.perf_counter() - self.zero] * len(delta.token_ids)

        self.engine.add_request(item.request.prompt_token_ids, item.request.params, on_delta=write_down)


def replay(engines: Mapping[str, LLMEngine], load: Sequence[TimedRequest]) -> dict[str, Run]:
    """Serve the same load with each engine, showing a bar.

    The engines take turns, a step at a time, next the one whose clock is behind: whatever else the machine has to do
    meanwhile slows all of them alike, so that their times can be compared.
    """
    runs = {name: Run(engine, load) for name, engine in engines.items()}
    with ExitStack() as stack:
        for run in runs.values():
            run.records = stack.enter_context(run.engine.step_log.keep_all())
        bar = stack.enter_context(tqdm(total=len(load) * len(runs), desc=" and ".join(runs), unit="request"))
        while unfinished := [run for run in runs.values() if run.has_unfinished]:
            bar.update(min(unfinished, key=lambda run: run.now).step())
    return runs
