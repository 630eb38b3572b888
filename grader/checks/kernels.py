"""What the checks of all kernels share: where they run, how long they may take, and numbers in words."""

from __future__ import annotations

import torch
from torch import Tensor

from grader.framework import two_numbers

TIME_LIMIT = 60  # seconds: the first launch compiles, on a GPU


def kernel_device() -> str:
    """Where the driver's process runs kernels."""
    from tinyllm.kernels.runtime import INTERPRETED

    return "cpu" if INTERPRETED else "cuda"


def synchronize(device: str) -> None:
    """Wait for the GPU, so that an error of a kernel comes out here."""
    if device == "cuda":
        torch.cuda.synchronize()


def numbers_problem(expected: Tensor, got: Tensor, allowed: float) -> str | None:
    """What is wrong with one vector of finite numbers, in words; `allowed` is as the kernels' self-test has it."""
    wrong = (got - expected).abs() > allowed * (1 + expected.abs())
    if not bool(wrong.any()):
        return None
    first = int(wrong.nonzero()[0])
    wanted, came = two_numbers(expected[first].item(), got[first].item())
    numbers = f"{int(wrong.sum())} of {len(got)} numbers are wrong"
    return f"{numbers}, first number {first}: expected {wanted}, got {came}"
