"""Other right ways to a `Scheduler`."""

from grader.mutants import alternate
from tinyllm.engine.request import Request
from tinyllm.engine.scheduler import Scheduler
from tinyllm.engine.scheduler_output import ScheduledRequest


@alternate
class OnePassOverAll(Scheduler):
    """One loop over running and waiting requests alike: all that differs is how a request comes by its table."""

    def schedule_known_tokens(self) -> tuple[list[ScheduledRequest], list[Request]]:
        scheduled: list[ScheduledRequest] = []
        preempted: list[Request] = []
        budget = self.config.max_num_batched_tokens
        place = 0
        while budget > 0:
            if place == len(self.running) and (preempted or not self.starts_one()):
                break
            request = self.running[place]
            slots = self.kv.append(request.request_id, min(budget, request.num_uncomputed_tokens))
            if slots is None:
                preempted.append(self.preempt_last())
                continue
            scheduled.append(ScheduledRequest(request, slots))
            budget -= len(slots)
            place += 1
        return scheduled, preempted

    def starts_one(self) -> bool:
        """Move the first in line to the running ones, if it may."""
        if not self.waiting:
            return False
        first = self.waiting[0]
        if self.running and first.num_seqs > self.num_free_seqs():
            return False
        num_cached = self.kv.start(first.request_id, first.token_ids)
        if num_cached is None:
            return False
        first.num_computed_tokens = num_cached
        self.running.append(self.waiting.popleft())
        return True
