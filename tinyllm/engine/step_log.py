"""The records of an engine's steps: the newest, the totals of all, and whoever wants every one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinyllm.engine.metrics import StepRecord

#: Records that are kept, about a megabyte of them: an engine may run for months.
MAX_RECORDS = 4096


class StepLog:
    """Keeps the newest records of an engine that may never stop, and counts over all of them.

    Attributes:
        recent: the newest records, oldest first.
        listeners: called with each record once its step is done, in the engine's thread; like `on_delta`, they may not
            call the engine. What one raises comes out of the step, whose outputs the next one hands out.
        num_steps: steps so far.
        num_admitted_tokens, num_prefix_tokens_hit, num_preempted: sums over all of them, as in `StepRecord`.
    """

    def __init__(self, max_records: int = MAX_RECORDS) -> None:
        self.recent: deque[StepRecord] = deque(maxlen=max_records)
        self.listeners: list[Callable[[StepRecord], object]] = []
        self.num_steps = 0
        self.num_admitted_tokens = 0
        self.num_prefix_tokens_hit = 0
        self.num_preempted = 0

    def add(self, record: StepRecord) -> None:
        """Note a step and tell the listeners."""
        self.recent.append(record)
        self.num_steps += 1
        self.num_admitted_tokens += record.num_admitted_tokens
        self.num_prefix_tokens_hit += record.num_prefix_tokens_hit
        self.num_preempted += record.num_preempted
        for listener in tuple(self.listeners):  # one may take itself out
            listener(record)

    @contextmanager
    def keep_all(self) -> Iterator[list[StepRecord]]:
        """A list that gets every record from here to the end of the `with`.

        Example:
            >>> log = StepLog()
            >>> with log.keep_all() as records:
            ...     pass  # step the engine
            >>> records
            []
        """
        records: list[StepRecord] = []
        self.listeners.append(records.append)
        try:
            yield records
        finally:
            self.listeners.remove(records.append)
