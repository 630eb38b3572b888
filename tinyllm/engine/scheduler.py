"""Which requests compute how many tokens in the next step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Set

from tinyllm.config import EngineConfig
from tinyllm.engine.request import Request
from tinyllm.engine.scheduler_output import ScheduledRequest, SchedulerOutput
from tinyllm.kv_cache.manager import KVCacheManager


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
            child.num_computed_tokens = parent.num_computed_tokens
            self.running.insert(place, child)

    def finish(self, request: Request) -> None:
        """Take a request out, wherever it is, and free its blocks."""
        if request in self.running:
            self.running.remove(request)
            self.kv.free(request.request_id)
        else:
            self.waiting.remove(request)

    def schedule(self) -> SchedulerOutput:
        """Plan one step: known tokens first; drafts get what they leave, so that nobody waits for another's guesses."""
        were_running = set(self.running)
        scheduled, preempted = self.schedule_known_tokens()
        if not preempted:
            add_drafts(self.kv, scheduled, self.budget_after(scheduled))
        return complete_plan(self.kv, scheduled, preempted, were_running)

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
        seats = self.num_free_seqs()
        while budget > 0 and self.waiting:
            request = self.waiting[0]
            if request.num_seqs > seats and self.running:
                break
            num_cached = self.kv.start(request.request_id, request.token_ids)
            if num_cached is None:
                break
            request.num_computed_tokens = num_cached
            self.running.append(self.waiting.popleft())
            seats -= request.num_seqs
            num_tokens = min(request.num_uncomputed_tokens, budget)
            slots = self.kv.append(request.request_id, num_tokens)
            assert slots is not None, "KVCacheManager.start promised room for all tokens"
            scheduled.append(ScheduledRequest(request, slots))
            budget -= num_tokens
        return scheduled

    def num_free_seqs(self) -> int:
        """How many more requests may run; see `Request.num_seqs`. Counted anew at each call."""
        return self.config.max_num_seqs - sum(request.num_seqs for request in self.running)

    def budget_after(self, scheduled: Iterable[ScheduledRequest]) -> int:
        """Tokens that the step may still compute beside these."""
        return self.config.max_num_batched_tokens - sum(item.num_tokens for item in scheduled)


def add_drafts(kv: KVCacheManager, scheduled: Iterable[ScheduledRequest], budget: int) -> None:
    """Give drafts the slots after their request's last known token, in order, while budget and pool have room."""
    for item in scheduled:
        num_drafts = min(len(item.request.draft_token_ids), budget) if may_draft(item) else 0
        slots = kv.append(item.request.request_id, num_drafts) if num_drafts > 0 else None
        if slots:
            item.slots.extend(slots)
            budget -= num_drafts


def may_draft(item: ScheduledRequest) -> bool:
    """Whether the tokens after a request's share are its own guesses: not within a prompt, nor where it will fork."""
    return bool(item.request.draft_token_ids) and item.finishes_known_tokens and not item.request.num_siblings_to_fork


def complete_plan(
    kv: KVCacheManager, scheduled: list[ScheduledRequest], preempted: list[Request], were_running: Set[Request]
) -> SchedulerOutput:
    """What the step is to others: each share with its block ids, and who is admitted with it."""
    for item in scheduled:
        item.block_ids = kv.table(item.request.request_id).block_ids
    admitted = [item for item in scheduled if item.request not in were_running]
    return SchedulerOutput(
        scheduled,
        preempted,
        admitted,
        num_admitted_tokens=sum(len(item.request.token_ids) for item in admitted),
        num_prefix_tokens_hit=sum(item.request.num_computed_tokens for item in admitted),
    )


def count_computed(kv: KVCacheManager, item: ScheduledRequest) -> None:
    """After a step, with its new tokens in `token_ids`: count what is computed, and give back rejected drafts' slots.

    The last token is always one to compute: its logits, or those of the draft that it replaces, come from a later step.
    """
    request = item.request
    stop = request.num_computed_tokens + item.num_tokens
    request.num_computed_tokens = min(stop, len(request.token_ids) - 1)
    if request.num_computed_tokens < stop:
        kv.truncate(request.request_id, request.num_computed_tokens)


def roll_back(kv: KVCacheManager, running: Iterable[Request]) -> None:
    """After a step that broke off: every table holds the slots of counted tokens only, and every request has work.

    Tables may have slots for tokens that were never computed, and a request may lack the token that its logits gave.
    """
    for request in running:
        request.num_computed_tokens = min(request.num_computed_tokens, len(request.token_ids) - 1)
        kv.truncate(request.request_id, request.num_computed_tokens)
