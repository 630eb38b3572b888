"""What each step of a scheduler must be, worked out on paper: sums over who came first, without a pool or a loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from grader.framework import Case

LETTERS = "abcdefghijklmnopqrstuvwxyz"  # the names of requests


@dataclass(eq=False)
class Sequence:
    """A request on paper: tokens known and computed, tokens it will have, seats it takes.

    Attributes:
        held: blocks of its own.
        shared: blocks in front of these that others may have too.
    """

    name: str
    known: int
    final: int
    seats: int = 1
    computed: int = 0
    held: int = 0
    shared: int = 0


@dataclass
class Step:
    """What one step must be: tokens by request, in order, and who runs and waits afterwards."""

    scheduled: list[tuple[str, int]]
    preempted: list[str]
    running: list[str]
    waiting: list[str]


@dataclass
class ScheduleBooks:
    """Requests over a pool that share a beginning at most, the same for all.

    Attributes:
        line: all of them in order of arrival.
        num_running: how many of the first ones run.
        cached: blocks of the common beginning in the prefix cache.
    """

    case: Case
    line: list[Sequence] = field(default_factory=list)
    num_running: int = 0
    cached: int = 0

    def come_and_go(self, step: int) -> None:
        """The arrivals and aborts before a step."""
        for index, (when, num_prompt, num_output, *copies) in enumerate(self.case["arrivals"]):
            if when == step:
                self.line.append(Sequence(LETTERS[index], num_prompt, num_prompt + num_output, *copies))
        for when, index in self.case["aborts"]:
            if when == step:
                self.drop(LETTERS[index])

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
            wanted = sum(self.blocks(r.computed + share) - r.shared if share else r.held for r, share in pairs)
            if wanted + max(r.shared for r, _ in pairs) <= self.case["num_blocks"]:
                return kept
        return 0

    def step(self) -> Step:
        """Plan a step and take its blocks."""
        shares = self.shares(self.line[: self.num_running], self.case["budget"])
        kept = self.num_kept(shares)
        lost = self.line[kept : self.num_running]
        for request in lost:
            request.computed = request.held = request.shared = 0
        self.num_running = kept
        served = [(r, share) for r, share in zip(self.line[:kept], shares, strict=False) if share]
        for request, share in served:
            request.held = self.blocks(request.computed + share) - request.shared
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
            hit = min(self.cached, (request.known - 1) // self.case["block_size"])  # one token is left to compute
            taken = sum(other.held for other in running) + max([hit, *(other.shared for other in running)])
            no_seat = seats > self.case["max_num_seqs"] and running
            if budget <= 0 or no_seat or taken + self.blocks(request.known) - hit > self.case["num_blocks"]:
                break
            request.computed, request.shared = hit * self.case["block_size"], hit
            share = min(request.known - request.computed, budget)
            request.held = self.blocks(request.computed + share) - hit
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
                if not self.cached and self.case["shared_prefix"]:
                    self.cached = min(request.known, self.case["shared_prefix"]) // self.case["block_size"]
                    self.share(request, self.cached)
                for member in [request, *self.forked(request)]:
                    member.known += 1
                    if member.known >= member.final:
                        self.drop(member.name)

    def forked(self, request: Sequence) -> list[Sequence]:
        """The other continuations of a prompt, from its first computed token on. They share its full blocks; the last
        one is counted for each, since each will write to it."""
        if request.seats > 1:
            self.share(request, request.known // self.case["block_size"])
        names = [f"{request.name}{number}" for number in range(1, request.seats)]
        request.seats = 1
        siblings = [replace(request, name=name) for name in names]
        place = self.line.index(request) + 1
        self.line[place:place] = siblings
        self.num_running += len(siblings)
        return siblings

    def share(self, request: Sequence, num_blocks: int) -> None:
        """Let others have the first blocks of a request too."""
        request.held -= num_blocks - request.shared
        request.shared = num_blocks

    def drop(self, name: str) -> None:
        """Take a request out, wherever it is."""
        for place, request in enumerate(self.line):
            if request.name == name:
                self.num_running -= place < self.num_running
                del self.line[place]
                return
