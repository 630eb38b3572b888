"""What a check on a CPU takes for a wait for the GPU, and what it does not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from grader.checks.day3.waits import NUMBER, SIZE, watched

WAITS: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "int": (NUMBER, lambda t: int(t[0])),
    "item": (NUMBER, lambda t: t.sum().item()),
    "tolist": (NUMBER, lambda t: t.tolist()),
    "numpy": (NUMBER, lambda t: t.numpy()),
    "cpu": (NUMBER, lambda t: t.cpu()),
    "print": (NUMBER, str),
    "condition": (NUMBER, lambda t: 1 if (t > 1).any() else 0),
    "in": (NUMBER, lambda t: 2 in t),
    "equal": (NUMBER, lambda t: torch.equal(t, t)),
    "slice": (NUMBER, lambda t: t[: t[0]]),
    "range": (NUMBER, lambda t: range(t[0])),
    "list of tensors": (NUMBER, lambda t: torch.tensor([t[0], t[1]])),
    "one_hot without a number": (NUMBER, F.one_hot),
    "nonzero": (SIZE, lambda t: t.nonzero()),
    "where": (SIZE, lambda t: torch.where(t > 1)),
    "mask": (SIZE, lambda t: t[t > 1]),
    "masked_select": (SIZE, lambda t: t.masked_select(t > 1)),
    "mask written with a tensor": (SIZE, lambda t: t.clone().__setitem__(t > 0, t[:2])),
    "bincount": (SIZE, lambda t: t.bincount(minlength=4)),
    "unique": (SIZE, lambda t: t.unique()),
    "repeat_interleave": (SIZE, lambda t: t.repeat_interleave(t)),
    "tensor_split": (SIZE, lambda t: t.tensor_split(t)),
}
RUNS: dict[str, Callable[[Tensor], Any]] = {
    "mask written with a number": lambda t: t.clone().__setitem__(t > 1, 5),
    "index": lambda t: t[t],
    "one_hot": lambda t: F.one_hot(t, 4),
    "one_hot by name": lambda t: F.one_hot(t, num_classes=4),
    "repeat_interleave": lambda t: t.repeat_interleave(t, output_size=3),
    "where": lambda t: torch.where(t > 1, t, 0),
    "sort": lambda t: t.sort(stable=True),
    "scatter": lambda t: torch.zeros_like(t).scatter_add_(0, t, t),
    "searchsorted": lambda t: torch.searchsorted(t.cumsum(0), t),
    "list": list,
    "shape": lambda t: torch.arange(len(t)),
    "numbers": lambda t: torch.tensor([1, t.numel()]),
}


def waits_of(call: Callable[[Tensor], Any]) -> list[str]:
    tensor = torch.tensor([1, 2, 0])
    with watched() as waits:
        call(tensor)
    return waits


@pytest.mark.parametrize("name", WAITS)
def test_it_waits(name: str) -> None:
    kind, call = WAITS[name]
    assert waits_of(call)[:1] == [kind]


@pytest.mark.parametrize("name", RUNS)
def test_it_does_not_wait(name: str) -> None:
    assert waits_of(RUNS[name]) == []


def test_the_compiler_is_not_imported() -> None:
    before = "torch._dynamo" in sys.modules
    waits_of(lambda t: t + 1)
    assert ("torch._dynamo" in sys.modules) == before
