"""Regular languages over bytes: small parts that are put together, and an automaton that reads a byte at a time.

A part is a function that adds its states to an automaton, behind a state that is there, and returns the state in which
it has been read (Thompson, "Regular Expression Search Algorithm", 1968).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

States = frozenset[int]


class Automaton:
    """What the parts describe. It is in several states at once: those that can be reached with what has been read.

    Attributes:
        start: the states before the first byte.
    """

    def __init__(self, part: Part) -> None:
        self._moves: list[dict[int, list[int]]] = []  # state -> byte -> the states after it
        self._links: list[list[int]] = []  # state -> states that are reached without a byte
        first = self.new_state()
        self._last = part(self, first)
        self.start = self._reached([first])
        self._steps: dict[tuple[States, int], States] = {}

    def new_state(self) -> int:
        """A state from which nothing leads on yet."""
        self._moves.append({})
        self._links.append([])
        return len(self._moves) - 1

    def move(self, state: int, allowed: Iterable[int], to: int) -> None:
        """Let each of these bytes lead from one state to another."""
        for byte in allowed:
            self._moves[state].setdefault(byte, []).append(to)

    def link(self, state: int, to: int) -> None:
        """Let one state lead to another without a byte."""
        self._links[state].append(to)

    def complete(self, states: States) -> bool:
        """Whether what has been read is all of it."""
        return self._last in states

    def step(self, states: States, byte: int) -> States:
        """The states after one more byte; none where it may not come next."""
        if (states, byte) not in self._steps:
            after = (self._moves[state].get(byte, ()) for state in states)
            self._steps[states, byte] = self._reached(chain.from_iterable(after))
        return self._steps[states, byte]

    def read(self, states: States, read: bytes) -> States:
        """The states after some more bytes."""
        for byte in read:
            states = self.step(states, byte)
        return states

    def accepts(self, whole: bytes) -> bool:
        """Whether this is what the parts describe, from the first byte to the last."""
        return self.complete(self.read(self.start, whole))

    def _reached(self, states: Iterable[int]) -> States:
        found = set(states)
        waiting = list(found)
        while waiting:
            for state in self._links[waiting.pop()]:
                if state not in found:
                    found.add(state)
                    waiting.append(state)
        return frozenset(found)


Part = Callable[[Automaton, int], int]


def one_of(allowed: Iterable[int]) -> Part:
    """Any one of these bytes."""
    choices = frozenset(allowed)

    def build(automaton: Automaton, start: int) -> int:
        end = automaton.new_state()
        automaton.move(start, choices, end)
        return end

    return build


def text(literal: str) -> Part:
    """These characters and no others."""
    return sequence(*(one_of([byte]) for byte in literal.encode()))


def sequence(*parts: Part) -> Part:
    """One part after another."""

    def build(automaton: Automaton, start: int) -> int:
        for part in parts:
            start = part(automaton, start)
        return start

    return build


def choice(*parts: Part) -> Part:
    """One of several parts."""

    def build(automaton: Automaton, start: int) -> int:
        end = automaton.new_state()
        for part in parts:
            own = automaton.new_state()  # a part may lead back to its first state, and that is not everyone's
            automaton.link(start, own)
            automaton.link(part(automaton, own), end)
        return end

    return build


def repeated(part: Part) -> Part:
    """A part as often as one likes, or not at all."""

    def build(automaton: Automaton, start: int) -> int:
        again = automaton.new_state()
        automaton.link(start, again)
        automaton.link(part(automaton, again), again)
        return again

    return build


def optional(part: Part) -> Part:
    """A part, or nothing."""
    return choice(part, sequence())
