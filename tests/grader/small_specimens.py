"""Wrong and right answers to the made-up exercises, as a file of mutants looks."""

from __future__ import annotations

import torch
from small_exercises import Purse, running_sum

from grader.mutants import alternate, mutant, unknown_bug, variant


@mutant
class NeverRefuses(Purse):
    """You hand out more than there is. What should happen when too little is left?"""

    def take(self, count: int) -> None:
        self.left -= count


@variant(NeverRefuses)
class RefusesTooLate(Purse):
    def take(self, count: int) -> None:
        self.left = max(self.left - count, 0)


@mutant
class KeepsWhatComesBack(Purse):
    """What is given back never reaches the purse."""

    def give(self, count: int) -> None:
        pass


@variant(KeepsWhatComesBack)
class GivesToNobody(Purse):
    def give(self, count: int) -> None:
        left = self.left
        left += count


@mutant
class LosesTheLast(Purse):
    """You refuse the last one, which may still be taken."""

    def take(self, count: int) -> None:
        if count >= self.left:
            raise ValueError("too little is left")
        self.left -= count


@variant(LosesTheLast)
class StartsWithOneLess(Purse):
    def __init__(self, size: int) -> None:
        self.left = size - 1


@unknown_bug
class RaisesTheWrongError(Purse):
    def take(self, count: int) -> None:
        if count > self.left:
            raise MemoryError("too little is left")
        self.left -= count


@alternate
class KeepsAList:
    def __init__(self, size: int) -> None:
        self.coins = [None] * size

    def take(self, count: int) -> None:
        if count > len(self.coins):
            raise ValueError("too little is left")
        del self.coins[:count]

    def give(self, count: int) -> None:
        self.coins.extend([None] * count)


@mutant
def adds_nothing(values: torch.Tensor) -> torch.Tensor:
    """You return the values themselves."""
    return values.clone()


def helper_that_is_no_specimen(values: torch.Tensor) -> torch.Tensor:
    return running_sum(values)
