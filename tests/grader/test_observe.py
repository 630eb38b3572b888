"""What learners' code returns becomes plain data, and the words about it say what was expected and what came."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from grader.framework.observe import outcome_of, plain, tensor_problem


class Pair(NamedTuple):
    first: int
    second: int


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Pair(1, 2), [1, 2]),
        (range(3), [0, 1, 2]),
        (deque([1]), [1]),
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (np.int64(4), 4),
        ({1: (2,)}, {"1": [2]}),
        (True, True),
        ({1, 2}, "<set>"),
        (object(), "<object>"),
        (int, "<type>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain(value: object, expected: object) -> None:
    read = plain(value)
    assert read == expected
    assert type(read) is type(expected)


def test_plain_tensors_are_contiguous_copies() -> None:
    pool = torch.arange(12.0, requires_grad=True).view(3, 4)
    read = plain(pool[:, 1])
    assert torch.equal(read, pool[:, 1])
    assert read.is_contiguous()
    assert not read.requires_grad


def raising(error: BaseException) -> Callable[[], Any]:
    def call() -> None:
        raise error

    return call


class OwnError(MemoryError):
    pass


def test_outcome_of() -> None:
    assert outcome_of(lambda: (1, 2)) == {"value": [1, 2]}
    assert outcome_of(raising(OwnError())) == {"raised": "OwnError", "kinds": ["OwnError", "MemoryError"]}
    assert outcome_of(raising(KeyError()), KeyError)["raised"] == "KeyError"
    with pytest.raises(KeyError):
        outcome_of(raising(KeyError()))
    with pytest.raises(NotImplementedError):
        outcome_of(raising(NotImplementedError()), RuntimeError)


@pytest.mark.parametrize(
    ("got", "words"),
    [
        (torch.tensor([1.0, 2.0]), None),
        (torch.tensor([1.0, 2.00001]), None),
        (torch.tensor([1.0, 3.0]), r"K is wrong in 1 of 2 values, first at \[1\]: expected 2, got 3"),
        (torch.tensor([1.0, float("nan")]), "got nan"),
        (torch.tensor([1.0]), r"shape \[2\], got \[1\]"),
        (torch.tensor([1, 2]), "torch.float32, got torch.int64"),
        ([1.0, 2.0], r"should be a tensor of shape \[2\], got \[1.0, 2.0\]"),
        (None, "got None"),
    ],
)
def test_tensor_problem(got: object, words: str | None) -> None:
    problem = tensor_problem("K", torch.tensor([1.0, 2.0]), got, atol=1e-3)
    assert (problem is None) == (words is None)
    assert words is None or re.search(words, str(problem))
