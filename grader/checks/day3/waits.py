"""Finds where code would wait for a GPU, on a CPU too: where it takes a number or a size from a tensor's values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

NUMBER = (
    "it makes Python numbers of a tensor's values (int(), .item(), .tolist(), print, an index, a slice, a condition)"
)
SIZE = "the size of a tensor hangs on values (nonzero, x[mask], bincount, unique, repeat_interleave and the like)"

#: Methods that copy to the CPU, printing among them. On a CPU no operator shows them.
COPIES = ("tolist", "numpy", "cpu", "__array__", "__repr__", "__format__")
MASKS = (torch.bool, torch.uint8)


@contextmanager
def watched() -> Iterator[list[str]]:
    """Run torch's operators as always; the list gets NUMBER or SIZE for each that a GPU would have to be waited for."""
    waits: list[str] = []
    operators = _Operators(waits)
    with _Calls(waits, operators), operators:
        yield waits


class _Operators(TorchDispatchMode):
    """Sees every operator, also those that a function of torch calls."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits
        self.paused = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """As torch's own doc has it: nothing is compiled here, and importing the compiler would take seconds."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.paused:
            if torch.Tag.data_dependent_output in func.tags:
                self.waits.append(NUMBER)
            elif size_hangs_on_values(func, args, kwargs):
                self.waits.append(SIZE)
        return func(*args, **kwargs)


class _Calls(TorchFunctionMode):
    """Sees the calls from Python, of which some reach the values without an operator."""

    def __init__(self, waits: list[str], operators: _Operators) -> None:
        super().__init__()
        self.waits = waits
        self.operators = operators

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        makes_tensor = name in ("tensor", "as_tensor") and isinstance(args[0], list | tuple)
        if name in COPIES or (makes_tensor and any(isinstance(item, Tensor) for item in args[0])):
            self.waits.append(NUMBER)
        if name == "tensor_split" and any(isinstance(item, Tensor) for item in (*args[1:], *kwargs.values())):
            self.waits.append(SIZE)
        # With the number of classes given, it looks at the ids on a CPU alone.
        self.operators.paused = name == "one_hot" and kwargs.get("num_classes", (*args, -1, -1)[1]) != -1
        try:
            return func(*args, **kwargs)
        finally:
            self.operators.paused = False


def size_hangs_on_values(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operator has to count what there is in a tensor before it knows the size of its result."""
    name = func.overloadpacket.__name__
    if name == "index":
        return has_mask(args[1])
    if name in ("index_put", "index_put_"):  # one number for a mask is written without a count
        return has_mask(args[1]) and args[2].dim() > 0
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    return torch.Tag.dynamic_output_shape in func.tags


def has_mask(indices: Any) -> bool:
    """Whether one of an operator's indices is a tensor of truth values."""
    return any(item is not None and item.dtype in MASKS for item in indices)
