"""Mistakes that people make in `Scheduler`."""

from grader.mutants import mutant, unknown_bug, variant
from tinyllm.engine.request import Request
from tinyllm.engine.scheduler import ScheduledRequest, Scheduler


@mutant
class ForgetsWhatRunningTook(Scheduler):
    """You admit waiting requests on the whole budget again. What the running requests take in this step counts too."""

    def schedule_known_tokens(self) -> tuple[list[ScheduledRequest], list[Request]]:
        scheduled, preempted = self.schedule_running()
        if not preempted:
            scheduled += self.admit_waiting(self.config.max_num_batched_tokens)
        return scheduled, preempted


@variant(ForgetsWhatRunningTook)
class CountsTheBudgetAnew(Scheduler):
    """The same: the budget that is handed over is not the one that is used."""

    def admit_waiting(self, budget: int) -> list[ScheduledRequest]:
        return super().admit_waiting(self.budget_after([]))


@mutant
class AdmitsWholePromptsOnly(Scheduler):
    """You start a request only if all its tokens fit into the step. A prompt that is longer than the budget never
    starts, and keeps everybody behind it waiting: it must be computed in chunks."""

    def admit_waiting(self, budget: int) -> list[ScheduledRequest]:
        scheduled = []
        seats = self.num_free_seats()
        while budget > 0 and self.waiting:
            request = self.waiting[0]
            if request.num_seats > seats and self.running or len(request.token_ids) > budget:
                break
            num_cached = self.kv.start(request.request_id, request.token_ids)
            if num_cached is None:
                break
            request.num_computed_tokens = num_cached
            self.running.append(self.waiting.popleft())
            seats -= request.num_seats
            slots = self.kv.append(request.request_id, request.num_uncomputed_tokens)
            assert slots is not None
            scheduled.append(ScheduledRequest(request, slots))
            budget -= len(slots)
        return scheduled


@variant(AdmitsWholePromptsOnly)
class StopsBeforeALongPrompt(Scheduler):
    """The same, one waiting request at a time."""

    def admit_waiting(self, budget: int) -> list[ScheduledRequest]:
        admitted = []
        behind = list(self.waiting)
        self.waiting.clear()
        while behind and len(behind[0].token_ids) <= budget:
            self.waiting.append(behind[0])
            started = super().admit_waiting(budget)
            if not started:
                self.waiting.clear()
                break
            behind.pop(0)
            admitted += started
            budget -= started[0].num_tokens
        self.waiting.extend(behind)
        return admitted


@mutant
class ServesNewRequestsFirst(Scheduler):
    """You admit waiting requests before the running ones are served. A long prompt then stops everybody who is in the
    middle of an answer. Running requests come first, waiting ones get what is left."""

    def schedule_known_tokens(self) -> tuple[list[ScheduledRequest], list[Request]]:
        budget = self.config.max_num_batched_tokens
        admitted = self.admit_waiting(budget)
        started = [item.request for item in admitted]
        budget -= sum(item.num_tokens for item in admitted)
        scheduled = []
        preempted: list[Request] = []
        place = 0
        while budget > 0 and place < len(self.running):
            request = self.running[place]
            if request in started:
                place += 1
                continue
            num_tokens = min(request.num_uncomputed_tokens, budget)
            slots = self.kv.append(request.request_id, num_tokens)
            if slots is None:
                victim = self.preempt_last()
                preempted.append(victim)
                admitted = [item for item in admitted if item.request is not victim]
                continue
            scheduled.append(ScheduledRequest(request, slots))
            budget -= num_tokens
            place += 1
        return admitted + scheduled, preempted


@variant(ServesNewRequestsFirst)
class PutsPromptsInFront(Scheduler):
    """The same, by setting aside the running requests while others are admitted."""

    def schedule_known_tokens(self) -> tuple[list[ScheduledRequest], list[Request]]:
        admitted = self.admit_waiting(self.budget_after([]))
        taken = sum(len(item.slots) for item in admitted)
        new = {item.request.request_id for item in admitted}
        scheduled: list[ScheduledRequest] = []
        preempted: list[Request] = []
        for request in [r for r in self.running if r.request_id not in new]:
            slots = None
            left = self.config.max_num_batched_tokens - taken
            while request in self.running and left > 0 and slots is None:
                slots = self.kv.append(request.request_id, min(left, request.num_uncomputed_tokens))
                if slots is None:
                    preempted.append(self.preempt_last())
                    new.discard(preempted[-1].request_id)
            if slots is not None:
                scheduled.append(ScheduledRequest(request, slots))
                taken += len(slots)
        return [item for item in admitted if item.request.request_id in new] + scheduled, preempted


@mutant
class OvertakesTheFirstInLine(Scheduler):
    """When the first in line finds no room you look for a later one that does. Small requests then overtake a large one
    for ever, as long as new ones come: nobody may be overtaken."""

    def admit_waiting(self, budget: int) -> list[ScheduledRequest]:
        scheduled = []
        seats = self.num_free_seats()
        for request in list(self.waiting):
            if budget <= 0:
                break
            if request.num_seats > seats and self.running:
                continue
            num_cached = self.kv.start(request.request_id, request.token_ids)
            if num_cached is None:
                continue
            request.num_computed_tokens = num_cached
            self.waiting.remove(request)
            self.running.append(request)
            seats -= request.num_seats
            num_tokens = min(request.num_uncomputed_tokens, budget)
            slots = self.kv.append(request.request_id, num_tokens)
            assert slots is not None
            scheduled.append(ScheduledRequest(request, slots))
            budget -= num_tokens
        return scheduled


@variant(OvertakesTheFirstInLine)
class TurnsTheLineRound(Scheduler):
    """The same, by sending whoever cannot start to the other end for a moment."""

    def admit_waiting(self, budget: int) -> list[ScheduledRequest]:
        scheduled: list[ScheduledRequest] = []
        stay = []
        while self.waiting and budget > 0:
            started = super().admit_waiting(budget)
            scheduled += started
            budget -= sum(item.num_tokens for item in started)
            if self.waiting and budget > 0:
                stay.append(self.waiting.popleft())
        self.waiting.extendleft(reversed(stay))
        return scheduled


@mutant
class CountsEveryRequestAsOneSeat(Scheduler):
    """You count a seat for each request. One with n = 3 becomes three as soon as its prompt is computed: it needs
    `request.num_seats` from the start, or there will be more running than there are seats."""

    def admit_waiting(self, budget: int) -> list[ScheduledRequest]:
        scheduled: list[ScheduledRequest] = []
        while budget > 0 and self.waiting and len(self.running) < self.config.max_num_seqs:
            request = self.waiting[0]
            num_cached = self.kv.start(request.request_id, request.token_ids)
            if num_cached is None:
                break
            request.num_computed_tokens = num_cached
            self.running.append(self.waiting.popleft())
            num_tokens = min(request.num_uncomputed_tokens, budget)
            slots = self.kv.append(request.request_id, num_tokens)
            assert slots is not None
            scheduled.append(ScheduledRequest(request, slots))
            budget -= num_tokens
        return scheduled


@variant(CountsEveryRequestAsOneSeat)
class LooksAtTheLengthOfTheList(Scheduler):
    """The same, in a loop over the seats."""

    def admit_waiting(self, budget: int) -> list[ScheduledRequest]:
        scheduled: list[ScheduledRequest] = []
        for _ in range(self.config.max_num_seqs - len(self.running)):
            if not self.waiting or budget < 1:
                return scheduled
            first = self.waiting.popleft()
            known = self.kv.start(first.request_id, first.token_ids)
            if known is None:
                self.waiting.appendleft(first)
                return scheduled
            first.num_computed_tokens = known
            self.running.append(first)
            slots = self.kv.append(first.request_id, min(budget, first.num_uncomputed_tokens)) or []
            scheduled.append(ScheduledRequest(first, slots))
            budget = budget - len(slots)
        return scheduled


@mutant
class SendsTheVictimToTheEnd(Scheduler):
    """A preempted request goes to the end of the line, behind requests that came after it. It has waited longest:
    it goes to the head."""

    def preempt_last(self) -> Request:
        victim = self.running.pop()
        self.kv.free(victim.request_id)
        victim.num_computed_tokens = 0
        self.waiting.append(victim)
        return victim


@variant(SendsTheVictimToTheEnd)
class AddsTheVictimAgain(Scheduler):
    """The same: it is added like a new request."""

    def preempt_last(self) -> Request:
        victim = self.running[-1]
        self.finish(victim)
        victim.num_computed_tokens = 0
        self.add(victim)
        return victim


@mutant
class PreemptsTheOldest(Scheduler):
    """You preempt the request that came first. It has the most to compute again, and the one that came last would have
    the least claim to its blocks: first come, first served."""

    def preempt_last(self) -> Request:
        victim = self.running.pop(0)
        self.kv.free(victim.request_id)
        victim.num_computed_tokens = 0
        self.waiting.appendleft(victim)
        return victim


@variant(PreemptsTheOldest)
class TakesTheFirstOfTheList(Scheduler):
    """The same, through `finish`."""

    def preempt_last(self) -> Request:
        oldest = next(iter(self.running))
        self.finish(oldest)
        oldest.num_computed_tokens -= oldest.num_computed_tokens
        self.waiting.insert(0, oldest)
        return oldest


@mutant
class KeepsAStaleCount(Scheduler):
    """A preempted request keeps its count of computed tokens, though its blocks are gone. Counted from there it has too
    few tokens left to compute, and reads slots that hold nothing of it."""

    def preempt_last(self) -> Request:
        victim = self.running.pop()
        self.kv.free(victim.request_id)
        self.waiting.appendleft(victim)
        return victim


@variant(KeepsAStaleCount)
class KeepsWhatItHadComputed(Scheduler):
    """The same: the count is put back."""

    def preempt_last(self) -> Request:
        victim = self.running[-1]
        computed = victim.num_computed_tokens
        super().preempt_last()
        victim.num_computed_tokens = computed
        return victim


@unknown_bug
class PreemptsTheNeedy(Scheduler):
    """Takes the blocks of the very request that needs more, whoever came after it."""

    def schedule_running(self) -> tuple[list[ScheduledRequest], list[Request]]:
        budget = self.config.max_num_batched_tokens
        scheduled: list[ScheduledRequest] = []
        preempted: list[Request] = []
        while budget > 0 and len(scheduled) < len(self.running):
            request = self.running[len(scheduled)]
            num_tokens = min(request.num_uncomputed_tokens, budget)
            slots = self.kv.append(request.request_id, num_tokens)
            if slots is None:
                self.running.append(self.running.pop(len(scheduled)))
                preempted.append(self.preempt_last())
                continue
            scheduled.append(ScheduledRequest(request, slots))
            budget -= num_tokens
        return scheduled, preempted


@unknown_bug
class NeverFreesTheVictim(Scheduler):
    """Forgets that a preempted request holds blocks."""

    def preempt_last(self) -> Request:
        victim = self.running.pop()
        victim.num_computed_tokens = 0
        self.waiting.appendleft(victim)
        return victim
