"""Where the time of an engine's step goes: the engine's own methods are timed from outside, each without its callees.

A call costs about a microsecond more while it is watched, some hundred calls a step; nothing else is changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from time import perf_counter
from typing import Any
from unittest.mock import patch

from torch import nn

import tinyllm.engine.engine as engine_module
from tinyllm.engine.engine import LLMEngine

#: The parts of a step. The first three are the model; the rest is what serving many requests costs beside it.
MODEL_PARTS = ("matrices", "attention", "rest_of_model")
OTHER_PARTS = ("schedule", "metadata", "attention_plan", "sampling", "bookkeeping")


def nothing() -> None:
    """What the CPU must do before it can look at the clock."""


class Stopwatch:
    """Seconds in named parts, each without the parts inside it.

    Attributes:
        seconds: part to time so far.
        synchronize: called before each look at the clock; on a GPU it must wait for the work sent there.
    """

    def __init__(self, synchronize: Callable[[], object] = nothing) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.synchronize = synchronize
        self._open: list[str] = []
        self._since = 0.0

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time counted as `part`."""

        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            self._charge()
            self._open.append(part)
            try:
                return function(*args, **options)
            finally:
                self._charge()
                self._open.pop()

        return call

    def lap(self) -> dict[str, float]:
        """The seconds since the last lap, by part."""
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken

    def _charge(self) -> None:
        """Give the time since the last look to the part that is open."""
        self.synchronize()
        now = perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


@contextmanager
def watch(engine: LLMEngine, synchronize: Callable[[], object] = nothing) -> Iterator[Stopwatch]:
    """Time the parts of an engine's steps while the context is open.

    Its runner may be a stand-in: what it has of `backend` and `model` is watched.
    """
    stopwatch = Stopwatch(synchronize)
    with ExitStack() as stack:

        def count(owner: Any, name: str, part: str) -> None:
            stack.enter_context(patch.object(owner, name, stopwatch.timed(part, getattr(owner, name))))

        count(engine, "step", "bookkeeping")
        count(engine.scheduler, "schedule", "schedule")
        count(engine_module, "verify_step", "sampling")
        count(engine.runner, "execute", "metadata")
        if backend := getattr(engine.runner, "backend", None):
            plan = backend.plan

            def planned(*args: Any) -> Callable[..., Any]:
                return stopwatch.timed("attention", plan(*args))

            stack.enter_context(patch.object(backend, "plan", stopwatch.timed("attention_plan", planned)))
        if model := getattr(engine.runner, "model", None):
            count(model, "forward", "rest_of_model")
            count(model, "compute_logits", "matrices")
            for module in model.modules():
                if isinstance(module, nn.Linear):
                    count(module, "forward", "matrices")
        yield stopwatch


def outside_model(seconds: Mapping[str, float]) -> float:
    """The part of some seconds that is not the model's."""
    return sum(seconds.get(part, 0.0) for part in OTHER_PARTS)
