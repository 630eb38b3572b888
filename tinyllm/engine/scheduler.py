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
    """A request's share of a step: its next `len(slots)` tokens, known ones first, and where their K and V go."""

    request: Request
    slots: list[int]

    @property
    def num_tokens(self) -> int:
        """Tokens that the request computes in this step."""
        return len(self.slots)

    @property
    def num_known_tokens(self) -> int:
        """Those of them that are known, from prompt or output. The rest are drafts."""
        return min(self.num_tokens, self.request.num_uncomputed_tokens)

    @property
    def num_draft_tokens(self) -> int:
        """Those of them that are guesses; see `Request.draft_token_ids`."""
        return self.num_tokens - self.num_known_tokens

    @property
    def finishes_known_tokens(self) -> bool:
        """Whether no known token is left after this step, so that the last one's logits give a new token."""
        return self.num_known_tokens == self.request.num_uncomputed_tokens


class Scheduler:
    """Continuous batching without phases, in the manner of vLLM v1.

    Each request has tokens still to compute; a step has a token budget. Running requests are served before waiting
    ones, both in order of arrival. When the pool is full the latest arrival loses its blocks and is computed again
    later (preemption by recompute); in such a step nobody new is admitted.

    Invariant: `running`, then `waiting`, list all requests in order of arrival, continuations of a prompt together.
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

    def fork(self, parent: Request, children: Iterable[Request]) -> None:
        """Let continuations of a running request run too, on its blocks; they arrived when it did."""
        for place, child in enumerate(children, self.running.index(parent) + 1):
            self.kv.fork(parent.request_id, child.request_id)
            self.running.insert(place, child)

    def finish(self, request: Request) -> None:
        """Take a request out, wherever it is, and free its blocks."""
        if request in self.running:
            self.running.remove(request)
            self.kv.free(request.request_id)
        else:
            self.waiting.remove(request)

    def schedule(self) -> tuple[list[ScheduledRequest], list[Request]]:
        """Plan one step: known tokens first; drafts get what they leave, so that nobody waits for another's guesses.

        Returns:
            The scheduled requests, and those that were preempted to make room for them.
        """
        take_back_unused_slots(self.kv, self.running)
        scheduled, preempted = self.schedule_known_tokens()
        if not preempted:
            add_drafts(self.kv, scheduled, self.budget_after(scheduled))
        return scheduled, preempted

    def schedule_known_tokens(self) -> tuple[list[ScheduledRequest], list[Request]]:
        """Serve the running requests, then, unless one of them was preempted, admit waiting ones on what is left.

        Returns:
            The scheduled requests in order of arrival, and those that were preempted, in any order.
        """
        scheduled, preempted = self.schedule_running()
        if not preempted:
            scheduled += self.admit_waiting(self.budget_after(scheduled))
        return scheduled, preempted

    def schedule_running(self) -> tuple[list[ScheduledRequest], list[Request]]:
        """Give each running request its tokens, as far as the budget goes, preempting while the pool is too full.

        Returns:
            The scheduled requests in order of arrival, and those that were preempted: the latest arrival each time,
            which may be the very request that needs the blocks.
        """
        budget = self.config.max_num_batched_tokens
        scheduled: list[ScheduledRequest] = []
        preempted: list[Request] = []
        while budget > 0 and len(scheduled) < len(self.running):
            request = self.running[len(scheduled)]
            num_tokens = min(request.num_uncomputed_tokens, budget)
            slots = self.kv.append(request.request_id, num_tokens)
            if slots is None:
                preempted.append(self.preempt_last())
                continue
            scheduled.append(ScheduledRequest(request, slots))
            budget -= num_tokens
        return scheduled, preempted

    def preempt_last(self) -> Request:
        """Take all blocks of the latest running request and put it at the head of the queue, with nothing computed.

        Returns:
            The request.
        """
        victim = self.running.pop()
        self.kv.free(victim.request_id)
        victim.num_computed_tokens = 0
        self.waiting.appendleft(victim)
        return victim

    def admit_waiting(self, budget: int) -> list[ScheduledRequest]:
        """Start waiting requests in order while there are budget, seats, and blocks for all their known tokens.

        The first that cannot start ends it: nobody is overtaken. A request that needs more seats than there are at
        all starts when nobody else is running.

        Args:
            budget: tokens that the step may still compute.

        Returns:
            The new requests, each with as many of its tokens as the budget allows.
        """
        scheduled: list[ScheduledRequest] = []
        seats = self.num_free_seats()
        while budget > 0 and self.waiting:
            request = self.waiting[0]
            if request.num_seats > seats and self.running:
                break
            num_cached = self.kv.start(request.request_id, request.token_ids)
            if num_cached is None:
                break
            request.num_computed_tokens = num_cached
            self.running.append(self.waiting.popleft())
            seats -= request.num_seats
            num_tokens = min(request.num_uncomputed_tokens, budget)
            slots = self.kv.append(request.request_id, num_tokens)
            assert slots is not None, "KVCacheManager.start promised room for all tokens"
            scheduled.append(ScheduledRequest(request, slots))
            budget -= num_tokens
        return scheduled

    def num_free_seats(self) -> int:
        """How many more requests may run; see `Request.num_seats`. Counted anew at each call."""
        return self.config.max_num_seqs - sum(request.num_seats for request in self.running)

    def budget_after(self, scheduled: Iterable[ScheduledRequest]) -> int:
        """Tokens that the step may still compute beside these."""
        return self.config.max_num_batched_tokens - sum(item.num_tokens for item in scheduled)


def take_back_unused_slots(kv: KVCacheManager, running: Iterable[Request]) -> None:
    """Leave every table with the slots of computed tokens only, and every request with a token to compute.

    The last step may have given a table more: for drafts that were rejected, or for any token if it was interrupted,
    after which a request may also lack the token that its last logits were for.
    """
    for request in running:
        request.num_computed_tokens = min(request.num_computed_tokens, len(request.token_ids) - 1)
        kv.truncate(request.request_id, request.num_computed_tokens)


def add_drafts(kv: KVCacheManager, scheduled: Iterable[ScheduledRequest], budget: int) -> None:
    """Give drafts the slots after their request's last known token, in order, while budget and pool have room."""
    for item in scheduled:
        num_drafts = min(len(item.request.draft_token_ids), budget) if item.finishes_known_tokens else 0
        slots = kv.append(item.request.request_id, num_drafts) if num_drafts > 0 else None
        if slots:
            item.slots.extend(slots)
            budget -= num_drafts
