"""What an exercise is: named properties, each with its cases, its drive and its judgment."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Literal

import torch

Case = dict[str, Any]  # plain JSON values and torch tensors
Observations = Any  # the same: whatever `plain` returns

MAX_CASE_TEXT = 600  # characters
MAX_TENSOR_VALUES = 12  # a tensor of up to so many values is shown with them


def describe_case(case: Case) -> str:
    """A case in one line: `name=value`, large tensors by dtype and shape only, cut at MAX_CASE_TEXT characters."""
    text = ", ".join(f"{name}={describe_value(value)}" for name, value in case.items())
    return text if len(text) <= MAX_CASE_TEXT else text[: MAX_CASE_TEXT - 4] + " ..."


def describe_value(value: Any) -> str:
    """A value of a case in few characters."""
    if not isinstance(value, torch.Tensor):
        return repr(value)
    dtype = str(value.dtype).removeprefix("torch.")
    strides = "" if value.is_contiguous() else f" with strides {list(value.stride())}"
    values = f" {rounded(value.tolist())}" if value.numel() <= MAX_TENSOR_VALUES else ""
    return f"{dtype} tensor of shape {list(value.shape)}{strides}{values}"


def rounded(value: Any) -> Any:
    """A number, or lists of them, in four significant digits."""
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


class Property(ABC):
    """One thing that a right answer does, in words that a learner understands.

    A property holds no state. Its cases are drawn and judged in another process than that of `drive`, which alone runs
    beside the learner's code. First come the fixed cases, the same for everybody: every mistake that is known must fail
    on one of them, so that no mark depends on a seed. The random ones look for what nobody has thought of.

    Attributes:
        sentence: what holds, for example "blocks are conserved".
        weight: points that it earns; those of an exercise's properties add up to the exercise's.
        time_limit: seconds that one case may take.
        requires: "", "cuda" or "triton": where that is missing the property is not checked.
        in_order: entries of a case that are lists of what is done, in order; of a failing case a learner sees them as
            far as the failure.
    """

    sentence: str
    weight: float = 1
    time_limit: float = 10
    requires: str = ""
    in_order: tuple[str, ...] = ()

    def fixed_cases(self) -> Iterable[Case]:
        """The inputs that everybody meets, smallest first; tensors in them are drawn from a constant seed."""
        return ()

    def random_cases(self, rng: random.Random) -> Iterable[Case]:
        """The inputs that depend on the seed, smallest first. The same `rng` gives the same cases."""
        return ()

    def cases(self, rng: random.Random) -> Iterator[Case]:
        """All inputs in their order."""
        yield from self.fixed_cases()
        yield from self.random_cases(rng)

    @abstractmethod
    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """Call the learner's object (`parts.<exercise>`; the other parts are the reference's) and say what it did.

        `case` is a copy; the framework reports it if the learner's code has changed it. Errors that are expected
        are caught here with `outcome_of`; any other is a crash of the learner's code.
        """

    @abstractmethod
    def judge(self, case: Case, observations: Observations) -> str | None:
        """None when right, else one sentence with what was expected and what came.

        `observations` is plain data but may be of any shape: the learner's code chose it. The sentence names no
        free choice (such as block ids), so that two ways of making one mistake read alike.
        """

    def describe(self, case: Case) -> str:
        """The case as a learner reads it."""
        return describe_case(case)

    @property
    def module(self) -> str:
        """The module that it is written in."""
        return type(self).__module__


class Prop(Property):
    """A property as a row of a table, made of functions: those of an exercise share them and differ in their cases.

    `prop = partial(Prop, drive=drive, judge=judge)`, then
    `prop("blocks are conserved", weight=1, fixed=[{"num_blocks": 3}], random=some_pools)`.
    """

    def __init__(
        self,
        sentence: str,
        *,
        weight: float,
        drive: Callable[[SimpleNamespace, Case], Observations],
        judge: Callable[[Case, Observations], str | None],
        describe: Callable[[Case], str] = describe_case,
        fixed: Iterable[Case] | Callable[[], Iterable[Case]] = (),
        random: Callable[[random.Random], Iterable[Case]] | None = None,
        time_limit: float = Property.time_limit,
        requires: str = "",
        in_order: tuple[str, ...] = (),
    ) -> None:
        """Args as Property's attributes and methods.

        Args:
            drive: stands in the exercise's own module, which is found through it.
            fixed: the fixed cases, or a function that makes them.
            random: draws the random ones; None when the fixed ones are enough.
        """
        self.sentence = sentence
        self.weight = weight
        self.time_limit = time_limit
        self.requires = requires
        self.in_order = in_order
        self._drive, self._judge, self._describe = drive, judge, describe
        self._fixed, self._random = fixed, random

    def fixed_cases(self) -> Iterable[Case]:
        """The cases of the row."""
        return self._fixed() if callable(self._fixed) else self._fixed

    def random_cases(self, rng: random.Random) -> Iterable[Case]:
        """Those that the row's function draws."""
        return self._random(rng) if self._random else ()

    def drive(self, parts: SimpleNamespace, case: Case) -> Observations:
        """As the row's function does."""
        return self._drive(parts, case)

    def judge(self, case: Case, observations: Observations) -> str | None:
        """As the row's function does."""
        return self._judge(case, observations)

    def describe(self, case: Case) -> str:
        """As the row's function does."""
        return self._describe(case)

    @property
    def module(self) -> str:
        """The module that `drive` is written in."""
        return self._drive.__module__


@dataclass(frozen=True, slots=True)
class Exercise:
    """An exercise of the course: the name of the object that learners write, and what must hold of it.

    A "kernel" is a function that launches Triton kernels, a "tile" a `@triton.jit` function that a kernel of the course
    calls. Both are driven in a process of its own, that of grader/running/kernel_client.py.

    Attributes:
        twins: functions of the course, each `module:name`, that do the same in another way. Where a submission runs,
            they are stubs as the exercise itself is.

    Raises:
        ValueError: no property, or two with the same sentence.
    """

    name: str
    kind: Literal["class", "function", "kernel", "tile"]
    properties: tuple[Property, ...]
    twins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sentences = [item.sentence for item in self.properties]
        if not sentences or len(set(sentences)) < len(sentences):
            raise ValueError(f"{self.name} needs at least one property, each with a sentence of its own")

    @property
    def in_triton(self) -> bool:
        """Whether answers run in Triton, and so in the process that is for it."""
        return self.kind in ("kernel", "tile")

    @property
    def points(self) -> float:
        """Points of a right answer."""
        return float(sum(item.weight for item in self.properties))

    @property
    def module(self) -> str:
        """The module with its checks."""
        return self.properties[0].module


def exercise_in(module: str, name: str) -> Exercise:
    """The exercise of that name in a module of checks.

    Raises:
        LookupError: the module has none.
    """
    for value in vars(import_module(module)).values():
        if isinstance(value, Exercise) and value.name == name:
            return value
    raise LookupError(f"{module} has no exercise {name}")


def properties_in(module: str, name: str) -> tuple[Property, ...]:
    """The properties in a module: those that stand in it alone, or else those of its exercise of that name.

    Raises:
        LookupError: the module has none.
    """
    alone = tuple(value for value in vars(import_module(module)).values() if isinstance(value, Property))
    return alone or exercise_in(module, name).properties


def generator(rng: random.Random) -> torch.Generator:
    """A torch generator that draws from `rng`, for tensors in cases."""
    return torch.Generator().manual_seed(rng.getrandbits(48))
