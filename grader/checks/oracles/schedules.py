"""What each step of a scheduler must be, worked out on paper: sums over who came first, without a pool or a loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from grader.framework import Case


@dataclass(eq=False)
class Sequence:
    """A request on paper: tokens known and computed, blocks held, tokens it will have, seats it takes."""

    name: str
    known: int
    final: int
    seats: int = 1
    computed: int = 0
    held: int = 0


@dataclass
class Step:
    """What one step must be: tokens by request, in order, and who runs and waits afterwards."""

    scheduled: list[tuple[str, int]]
    preempted: list[str]
    running: list[str]
    waiting: list[str]


@dataclass
class ScheduleBooks:
    """Requests over a pool in which they share nothing.

    Attributes:
        line: all of them in order of arrival.
        num_running: how many of the first ones run.
    """

    case: Case
    line: list[Sequence] = field(default_factory=list)
    num_running: int = 0

    def blocks(self, num_tokens: int) -> int:
        """Blocks that so many tokens of one request take."""
        return (num_tokens + self.case["block_size"] - 1) // int(self.case["block_size"])

    def shares(self, requests: Iterable[Sequence], budget: int) -> list[int]:
        """What each gets of the budget if all blocks were free: the first all that it wants, and so on."""
        shares = []
        for request in requests:
            shares.append(min(request.known - request.computed, budget))
            budget -= shares[-1]
        return shares

    def num_kept(self, shares: list[int]) -> int:
        """How many of the running requests keep their blocks: as many of the first ones as fit when all are served."""
        running = self.line[: self.num_running]
        for kept in range(len(running), 0, -1):
            pairs = list(zip(running[:kept], shares, strict=False))
            wanted = sum(self.blocks(r.computed + share) if share else r.held for r, share in pairs)
            if wanted <= self.case["num_blocks"]:
                return kept
        return 0

    def step(self) -> Step:
        """Plan a step and take its blocks."""
        shares = self.shares(self.line[: self.num_running], self.case["budget"])
        kept = self.num_kept(shares)
        lost = self.line[kept : self.num_running]
        for request in lost:
            request.computed = request.held = 0
        self.num_running = kept
        served = [(r, share) for r, share in zip(self.line[:kept], shares, strict=False) if share]
        for request, share in served:
            request.held = self.blocks(request.computed + share)
        if not lost:
            served += self.admitted(self.case["budget"] - sum(shares))
        return Step(
            scheduled=[(request.name, share) for request, share in served],
            preempted=[request.name for request in reversed(lost)],
            running=[request.name for request in self.line[: self.num_running]],
            waiting=[request.name for request in self.line[self.num_running :]],
        )

    def admitted(self, budget: int) -> list[tuple[Sequence, int]]:
        """The next in line, while each finds a token of budget, its seats, and blocks for all its known tokens."""
        found: list[tuple[Sequence, int]] = []
        for request in self.line[self.num_running :]:
            running = self.line[: self.num_running]
            seats = sum(other.seats for other in running) + request.seats
            free = self.case["num_blocks"] - sum(other.held for other in running)
            no_seat = seats > self.case["max_num_seqs"] and running
            if budget <= 0 or no_seat or self.blocks(request.known) > free:
                break
            share = min(request.known, budget)
            request.held = self.blocks(share)
            found.append((request, share))
            self.num_running += 1
            budget -= share
        return found

    def compute(self, step: Step) -> None:
        """Do what the step says: requests whose tokens are all computed get another one, or end."""
        shares = dict(step.scheduled)
        for request in list(self.line):
            request.computed += shares.get(request.name, 0)
            if shares.get(request.name) and request.computed == request.known:
                for member in [request, *self.forked(request)]:
                    member.known += 1
                    if member.known >= member.final:
                        self.drop(member.name)

    def forked(self, request: Sequence) -> list[Sequence]:
        """The other continuations of a prompt, from its first computed token on; its blocks are counted for each."""
        names = [f"{request.name}{number}" for number in range(1, request.seats)]
        request.seats = 1
        siblings = [replace(request, name=name) for name in names]
        place = self.line.index(request) + 1
        self.line[place:place] = siblings
        self.num_running += len(siblings)
        return siblings

    def drop(self, name: str) -> None:
        """Take a request out, wherever it is."""
        for place, request in enumerate(self.line):
            if request.name == name:
                self.num_running -= place < self.num_running
                del self.line[place]
                return
