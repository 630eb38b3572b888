"""Every address that a kernel touches in Triton's interpreter, held against the tensors that its launch was given.

A read outside of them is found even where its value does no harm, which guard zones cannot do. Compiled kernels are not
watched: there the guard zones of `tinyllm.kernels.guards` are all there is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyllm.kernels.runtime import INTERPRETED

#: Rows of a tensor that is spread lie so many numbers apart: with row 2 an offset passes 2**31.
FAR = 2**30
#: Where tensors that are spread pretend to lie: no process has memory there.
NOWHERE = 2**60
#: Bytes from the nearest tensor beyond which it has nothing to do with an access.
NEAR = 2**20


class OutsideRead(Exception):
    """A kernel reads what its launch was not given."""


class OutsideWrite(Exception):
    """A kernel writes to what its launch was not given."""


@dataclass(frozen=True, slots=True)
class Region:
    """The numbers of one tensor, without the room between them.

    Attributes:
        label: what it is, in words.
        itemsize: bytes of a number.
        start: address of the first number.
        real: where that number is in truth.
        dims: of each dimension, the longest stride first: its size, its stride in bytes and the stride in truth.
    """

    label: str
    itemsize: int
    start: int
    real: int
    dims: tuple[tuple[int, int, int], ...]

    @property
    def end(self) -> int:
        """Address behind the last number."""
        return self.start + sum((size - 1) * stride for size, stride, _ in self.dims) + self.itemsize

    def find(self, addresses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which addresses are its own, and where they are in truth."""
        rest = addresses - self.start
        own, real = (rest >= 0) & (addresses < self.end), np.full_like(addresses, self.real)
        for size, stride, true_stride in self.dims:
            index, rest = np.divmod(rest, stride)
            own &= index < size
            real += index * true_stride
        return own & (rest < self.itemsize), real + rest


def region_of(label: str, tensor: Tensor, content: Tensor | None = None) -> Region | None:
    """The region of a tensor, whose numbers are in truth those of `content`; None where it has no number."""
    if tensor.numel() == 0:
        return None
    itemsize, content = tensor.element_size(), tensor if content is None else content
    strides = zip(tensor.shape, tensor.stride(), content.stride(), strict=True)
    dims = sorted(
        ((size, stride * itemsize, real * itemsize) for size, stride, real in strides if size > 1 and stride),
        key=lambda dim: -dim[1],
    )
    merged: list[tuple[int, int, int]] = []
    for size, stride, real in dims:
        outer = merged[-1] if merged else (0, 0, 0)
        if outer[1:] == (size * stride, size * real):  # side by side: one long dimension
            merged[-1] = (outer[0] * size, stride, real)
        else:
            merged.append((size, stride, real))
    inner = itemsize
    for size, stride, _ in reversed(merged):
        if stride < inner:  # rows that overlap, of which all from first to last is taken
            last = sum((size - 1) * stride for size, stride, _ in merged)
            merged = [(last // itemsize + 1, itemsize, itemsize)]
            break
        inner = (size - 1) * stride + inner
    return Region(label, itemsize, tensor.data_ptr(), content.data_ptr(), tuple(merged))


class Rules:
    """What a case says about its tensors beyond what they are."""

    def __init__(self) -> None:
        self.parts: dict[int, Sequence[Tensor]] = {}
        self.spreads: dict[int, tuple[Tensor, Tensor]] = {}  # by where their memory pretends to begin
        self._free = NOWHERE

    def only(self, tensor: Tensor, parts: Sequence[Tensor]) -> None:
        """Of a tensor just these views may be touched: the used entries of a block table."""
        self.parts[tensor.data_ptr()] = parts

    def spread(self, content: Tensor) -> Tensor:
        """A tensor with the numbers of `content`, its rows FAR apart: offsets in it pass 2**31.

        It takes no memory, since what a kernel does with it is done with `content`. Nothing but a kernel can touch it.
        Compiled kernels get `content` itself.
        """
        if not INTERPRETED or content.numel() == 0:
            return content
        inner = 1 + sum((size - 1) * s for size, s in zip(content.shape[1:], content.stride()[1:], strict=True))
        num_bytes = ((content.shape[0] - 1) * FAR + inner) * content.element_size()
        memory = (ctypes.c_char * num_bytes).from_address(self._free)
        far = torch.frombuffer(memory, dtype=content.dtype).as_strided(content.shape, (FAR, *content.stride()[1:]))
        self.spreads[self._free] = (far, content)
        self._free += 2 * FAR * content.element_size() * content.shape[0]
        return far

    def regions(self, arguments: Mapping[str, Any]) -> list[Region]:
        """The regions of a launch."""
        found = []
        for name, tensor in tensors_in(arguments):
            label = f"the tensor at `{name}`, {list(tensor.shape)}"
            pieces = [self.spreads.get(tensor.untyped_storage().data_ptr(), (tensor, tensor))]
            if tensor.data_ptr() in self.parts:
                label = f"what it may use of {label}"
                pieces = [(part, part) for part in self.parts[tensor.data_ptr()]]
            found += [region for piece, content in pieces if (region := region_of(label, piece, content))]
        return found


_rules = Rules()  # of the case that is driven
_given: list[Region] = []  # of the launch that runs


@contextmanager
def access_rules() -> Iterator[Rules]:
    """The rules of one case, as long as it is driven."""
    global _rules
    before, _rules = _rules, Rules()
    try:
        yield _rules
    finally:
        _rules = before


def tensors_in(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a launch by the kernel's parameters; those in tuples and descriptors too."""
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, tuple):
            yield from tensors_in({f"{name}[{number}]": item for number, item in enumerate(value)})
        elif isinstance(getattr(value, "base", None), Tensor):
            yield name, value.base


def watch_kernels() -> None:
    """From now on every launch in the interpreter of this process is watched. Done twice it changes nothing more.

    A kernel that touches what it must not ends with OutsideRead or OutsideWrite, before it has done so.
    """
    from triton.runtime import interpreter

    builder, launch = interpreter.InterpreterBuilder, interpreter.GridExecutor.__call__
    if getattr(launch, "watched", False):
        return

    def watched_launch(executor: Any, *args: Any, **kwargs: Any) -> Any:
        global _given
        before, _given = _given, _rules.regions({**dict(zip(executor.arg_names, args, strict=False)), **kwargs})
        try:
            return launch(executor, *args, **kwargs)
        finally:
            _given = before

    watched_launch.watched = True  # type: ignore[attr-defined]
    interpreter.GridExecutor.__call__ = watched_launch

    def watched(method: Callable[..., Any], pointer: int, mask: int | None, error: type[Exception]) -> Any:
        """A method of the builder that checks its argument at `pointer` first, where that at `mask` is True."""

        def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
            handle = args[pointer]
            active = np.ones_like(handle.data, bool) if mask is None else args[mask].data
            addresses = true_addresses(handle.data, active, self.grid_idx, error)
            moved = interpreter.TensorHandle(addresses, handle.dtype)
            return method(self, *args[:pointer], moved, *args[pointer + 1 :], **kwargs)

        return checked

    builder.create_masked_load = watched(builder.create_masked_load, 0, 1, OutsideRead)
    builder.create_masked_store = watched(builder.create_masked_store, 0, 2, OutsideWrite)
    builder.create_atomic_cas = watched(builder.create_atomic_cas, 0, None, OutsideWrite)
    builder.create_atomic_rmw = watched(builder.create_atomic_rmw, 1, 3, OutsideWrite)


def true_addresses(
    pointers: np.ndarray, active: np.ndarray, program: tuple[int, ...], error: type[Exception]
) -> np.ndarray:
    """Where the numbers behind pointers are in truth.

    Args:
        pointers: uint64 addresses of any shape.
        active: those that are not masked.
        program: which one of the grid asks, for the message.

    Raises:
        Exception: of the class `error`, where an active pointer is none of a given tensor's.
    """
    active = np.broadcast_to(active, pointers.shape).astype(bool)  # `a & b` of masks is an array of integers
    left, result = pointers[active].astype(np.int64), pointers.astype(np.int64)
    real, lost = left.copy(), np.ones(len(left), bool)
    for region in _given:
        own, there = region.find(left[lost])
        places = np.flatnonzero(lost)[own]
        real[places], lost[places] = there[own], False
        if not lost.any():
            result[active] = real
            return result.astype(np.uint64)
    if not lost.any():
        return pointers
    raise error(where_text(left[lost], program, "reads" if error is OutsideRead else "writes"))


def where_text(outside: np.ndarray, program: tuple[int, ...], does: str) -> str:
    """Addresses outside of all tensors in words: how many, and where the first of them is."""
    address, count = int(outside[0]), len(outside)
    numbers = "a number" if count == 1 else f"{count} numbers"
    text = f"program {program} {does} {numbers} outside of the tensors that the launch was given"
    distances = [max(region.start - address, address - region.end, 0) for region in _given]
    if not distances or min(distances) > NEAR:
        return f"{text}, far from all of them"
    region = _given[distances.index(min(distances))]
    first = "it is" if count == 1 else "the first is"
    if address < region.start:
        return f"{text}: {first} {-((address - region.start) // region.itemsize)} before the first of {region.label}"
    if address >= region.end:
        return f"{text}: {first} {(address - region.end) // region.itemsize + 1} behind the last of {region.label}"
    return f"{text}: {first} in the room between the rows of {region.label}"
