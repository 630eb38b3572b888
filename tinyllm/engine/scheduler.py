"""Which requests compute how many tokens in the next step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from tinyllm.config import EngineConfig
from tinyllm.engine.request import Request
from tinyllm.kv_cache.manager import KVCacheManager


@dataclass(frozen=True, slots=True)
class ScheduledRequest:
    """A request's share of a step: its next `len(slots)` uncomputed tokens, and where their K and V go."""

    request: Request
    slots: list[int]

    @property
    def num_tokens(self) -> int:
        """Tokens that the request computes in this step."""
        return len(self.slots)

    @property
    def finishes_known_tokens(self) -> bool:
        """Whether no known token is left after this step, so that the last one's logits give a new token."""
        return self.num_tokens == self.request.num_uncomputed_tokens


class Scheduler:
    """Continuous batching without phases, in the manner of vLLM v1.

    Each request has tokens still to compute; a step has a token budget. Running requests are served before waiting
    ones, both in order of arrival. When the pool is full the latest arrival loses its blocks and is computed again
    later (preemption by recompute); in such a step nobody new is admitted.
    """

    def __init__(self, config: EngineConfig, kv: KVCacheManager) -> None:
        self.config = config
        self.kv = kv
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    @property
    def has_unfinished(self) -> bool:
        """Whether any request is running or waiting."""
        return bool(self.running or self.waiting)

    def add(self, request: Request) -> None:
        """Put a new request at the end of the queue."""
        self.waiting.append(request)

    def schedule(self) -> tuple[list[ScheduledRequest], list[Request]]:
        """Plan one step.

        Returns:
            The scheduled requests, and those that were preempted to make room for them.
        """
        scheduled, preempted = self._schedule_running()
        if not preempted:
            budget = self.config.max_num_batched_tokens - sum(item.num_tokens for item in scheduled)
            scheduled += self._admit_waiting(budget)
        return scheduled, preempted

    def fork(self, parent: Request, children: Iterable[Request]) -> None:
        """Let continuations of a running request run too, on its blocks."""
        for child in children:
            self.kv.fork(parent.request_id, child.request_id)
            self.running.append(child)

    def finish(self, request: Request) -> None:
        """Take a request out, wherever it is, and free its blocks."""
        if request in self.running:
            self.running.remove(request)
            self.kv.free(request.request_id)
        else:
            self.waiting.remove(request)

    def _schedule_running(self) -> tuple[list[ScheduledRequest], list[Request]]:
        """Give each running request its tokens, preempting from the end of the list while the pool is too full."""
        budget = self.config.max_num_batched_tokens
        scheduled: list[ScheduledRequest] = []
        preempted: list[Request] = []
        while budget > 0 and len(scheduled) < len(self.running):
            request = self.running[len(scheduled)]
            num_tokens = min(request.num_uncomputed_tokens, budget)
            slots = self.kv.append(request.request_id, num_tokens)
            if slots is None:
                preempted.append(self._preempt_last())
                continue
            scheduled.append(ScheduledRequest(request, slots))
            budget -= num_tokens
        return scheduled, preempted

    def _preempt_last(self) -> Request:
        """Take the blocks of the latest running request; it goes back to the head of the queue."""
        victim = self.running.pop()
        self.kv.free(victim.request_id)
        victim.num_computed_tokens = 0
        victim.metrics.num_preemptions += 1
        self.waiting.appendleft(victim)
        return victim

    def _admit_waiting(self, budget: int) -> list[ScheduledRequest]:
        """Start waiting requests in order while there are budget, seats, and blocks for all their known tokens."""
        scheduled: list[ScheduledRequest] = []
        while budget > 0 and self.waiting:
            request = self.waiting[0]
            seats = 1 + request.num_siblings_to_fork
            if len(self.running) + seats > max(self.config.max_num_seqs, seats):
                break
            num_cached = self.kv.start(request.request_id, request.token_ids)
            if num_cached is None:
                break
            if request.num_output_tokens == 0:
                request.metrics.num_prefix_tokens_hit = num_cached
            request.num_computed_tokens = num_cached
            self.running.append(self.waiting.popleft())
            num_tokens = min(request.num_uncomputed_tokens, budget)
            slots = self.kv.append(request.request_id, num_tokens)
            assert slots is not None, "KVCacheManager.start promised room for all tokens"
            scheduled.append(ScheduledRequest(request, slots))
            budget -= num_tokens
        return scheduled
