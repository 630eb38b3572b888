"""What checks say about numbers: rounded, so that two ways of making one mistake read alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from grader.framework import short, two_numbers


def closeness_problem(name: str, expected: Tensor, got: Any, rtol: float, atol: float) -> str | None:
    """What is wrong with a tensor of numbers that may differ by rounding, in one sentence; None if nothing is.

    Compares type, shape, and every value within `atol + rtol * |expected|`; infinities must be equal, NaN is wrong.
    """
    if not isinstance(got, Tensor):
        return f"{name} should be a tensor of shape {list(expected.shape)}, got {short(got)}"
    if got.shape != expected.shape:
        return f"{name} should have shape {list(expected.shape)}, got {list(got.shape)}"
    if not got.is_floating_point():
        return f"{name} should hold floating point numbers, got {got.dtype}"
    exact = expected.double()
    wrong = ~torch.isclose(got.double(), exact, rtol=rtol, atol=atol)
    if not bool(wrong.any()):
        return None
    index = tuple(wrong.nonzero()[0].tolist())
    place = f" at {list(index)}" if index else ""
    wanted, came = two_numbers(exact[index].item(), got[index].item())
    return f"{name} is wrong, first{place}: expected {wanted}, got {came}"
