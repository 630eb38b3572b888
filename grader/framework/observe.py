"""From what the learner's code returned to plain data that a judge can trust: no object of the learner's survives.

Values are read with the built-in types' own methods, so that a subclass with an `__eq__` that is always true, or an
`__iter__` without end, changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grader.framework.words import short, two_numbers

MAX_VALUES = 200_000
MAX_TENSOR_BYTES = 16 * 2**20
MAX_DEPTH = 24

ANSWERS = (MemoryError, ValueError)


class ObservationError(Exception):
    """The observations are too large, too deep or too strange to be looked at."""


def plain(value: Any) -> Any:
    """`value` as None, bool, int, float, str, list, dict with string keys, or contiguous CPU tensor.

    Tuples, ranges, deques and NumPy arrays become lists, NumPy numbers plain ones; anything else (a set, a generator,
    an object) becomes the text "<set>", "<generator>", ... of its type.

    Raises:
        ObservationError: more than MAX_VALUES values, MAX_TENSOR_BYTES of tensors or MAX_DEPTH levels.
    """
    return _Reader().read(value, MAX_DEPTH)


class _Reader:
    """One walk over a value, with what it may still take."""

    def __init__(self) -> None:
        self.values = MAX_VALUES
        self.tensor_bytes = MAX_TENSOR_BYTES

    def read(self, value: Any, depth: int) -> Any:
        """The value as plain data, `depth` levels of it at most."""
        self._take(1)
        if depth == 0:
            raise ObservationError(f"it is nested more than {MAX_DEPTH} levels deep")
        if value is None or type(value) is bool:
            return value
        kinds = mro_of(type(value))
        if Tensor in kinds:
            return self._tensor(value)
        if int in kinds:
            return int.__int__(value)
        if float in kinds:
            return float.__float__(value)
        if str in kinds:
            self._take(str.__len__(value) // 8)
            return str.__str__(value)
        if range in kinds:
            self._check(len(value))
            return [self.read(item, depth - 1) for item in value]
        for kind in (list, tuple, deque):
            if kind in kinds:
                self._check(kind.__len__(value))
                return [self.read(item, depth - 1) for item in kind.__iter__(value)]
        if dict in kinds:
            self._check(dict.__len__(value))
            items = list(dict.items(value))
            return {self._key(key): self.read(item, depth - 1) for key, item in items}
        if np.ndarray in kinds:
            self._check(int(np.ndarray.size.__get__(value)))
            return self.read(np.ndarray.tolist(value), depth - 1)
        if np.generic in kinds:
            return self.read(np.generic.item(value), depth - 1)
        return f"<{kinds[0].__name__}>"

    def _key(self, key: Any) -> str:
        read = self.read(key, 2)
        return read if isinstance(read, str) else repr(read)

    def _tensor(self, value: Tensor) -> Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            self.tensor_bytes -= Tensor.numel(value) * Tensor.element_size(value)
            if self.tensor_bytes < 0:
                raise ObservationError(f"it holds tensors of more than {MAX_TENSOR_BYTES // 2**20} MiB")
            try:
                detached = Tensor.detach(value)
                return torch.empty(detached.shape, dtype=detached.dtype).copy_(detached)
            except (RuntimeError, NotImplementedError) as error:  # sparse, meta and quantized tensors
                raise ObservationError(f"it holds a tensor that cannot be read ({error})") from None

    def _take(self, count: int) -> None:
        self._check(count)
        self.values -= count

    def _check(self, count: int) -> None:
        if count > self.values:
            raise ObservationError(f"it holds more than {MAX_VALUES:,} values")


def mro_of(cls: type) -> tuple[type, ...]:
    """A class's real bases, itself first: a metaclass may answer something else."""
    mro: tuple[type, ...] = type.__dict__["__mro__"].__get__(cls)
    return mro


def outcome_of(call: Callable[[], Any], *expected: type[Exception]) -> dict[str, Any]:
    """Call the learner's code where an error may be the right answer.

    Args:
        call: takes nothing; `lambda: allocator.allocate(3)`.
        expected: errors that are an answer; when none is given, MemoryError (of which OutOfBlocksError is one) and
            ValueError. Any other is left to crash the check, with the learner's line.

    Returns:
        `{"value": plain value}`, or `{"raised": name of the error's class, "kinds": [that, and its base classes]}`.
    """
    answers = expected or ANSWERS
    try:
        value = call()
    except NotImplementedError:  # the stub, even where RuntimeError is expected
        raise
    except answers as error:
        kinds = [kind.__name__ for kind in mro_of(type(error)) if kind not in (Exception, BaseException, object)]
        return {"raised": kinds[0] if kinds else "Exception", "kinds": kinds}
    return {"value": plain(value)}


def tensor_problem(name: str, expected: Tensor, got: Any, rtol: float = 0.0, atol: float = 0.0) -> str | None:
    """What is wrong with a tensor among the observations, in one sentence; None if nothing is.

    Compares type, shape, dtype and every value within `atol + rtol * |expected|`; NaN equals nothing.
    """
    if not isinstance(got, Tensor):
        return f"{name} should be a tensor of shape {list(expected.shape)}, got {short(got)}"
    if got.shape != expected.shape:
        return f"{name} should have shape {list(expected.shape)}, got {list(got.shape)}"
    if got.dtype != expected.dtype:
        return f"{name} should be {expected.dtype}, got {got.dtype}"
    wrong = ~torch.isclose(got, expected, rtol=rtol, atol=atol)
    if not bool(wrong.any()):
        return None
    index = tuple(wrong.nonzero()[0].tolist())
    place = f" at {list(index)}" if index else ""
    wanted, came = two_numbers(expected[index].item(), got[index].item(), digits=6)
    count = f"{int(wrong.sum())} of {wrong.numel()} values"
    return f"{name} is wrong in {count}, first{place}: expected {wanted}, got {came}"
