"""Copies of cases, and whether two are equal: how it is seen that an answer has changed its arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def copied(value: Any) -> Any:
    """A deep copy of a case as the wire gives it too: tuples become lists, tensors keep their strides."""
    if isinstance(value, Tensor):
        extent = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
        if value.numel() == 0:
            return value.clone()
        return value.as_strided((extent,), (1,)).clone().as_strided(value.shape, value.stride())
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [copied(item) for item in value]
    return value


def steps(tensor: Tensor) -> list[int]:
    """The strides that say where an element is: those of dimensions of several, where there is any element."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1 and tensor.numel()]


def same(a: Any, b: Any) -> bool:
    """Whether two cases are equal in type, value and strides, NaN included; asks nothing of the learner's objects."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype or steps(a) != steps(b):
            return False
        return bool(torch.equal(a, b)) or bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b or (a != a and b != b))
