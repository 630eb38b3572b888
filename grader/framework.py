"""What an exercise is: named properties, each with its cases, its drive and its judgement. Running them is elsewhere.

A check file needs this module alone: the helpers for `drive` and `judge` (observe.py) are exported from here too.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import torch

from grader.observe import outcome_of, plain, tensor_problem
from grader.results import CheckResult, Outcome, PropertyResult
from grader.usage import UsageError
from grader.words import expected_got, short, two_numbers, two_texts

__all__ = [
    "Case",
    "CheckResult",
    "Exercise",
    "Observations",
    "Outcome",
    "Property",
    "PropertyResult",
    "UsageError",
    "describe_case",
    "expected_got",
    "generator",
    "outcome_of",
    "plain",
    "short",
    "tensor_problem",
    "two_numbers",
    "two_texts",
]

Case = dict[str, Any]  # plain JSON values and torch tensors
Observations = Any  # the same: whatever `plain` returns

MAX_CASE_TEXT = 600  # characters
MAX_TENSOR_VALUES = 12  # a tensor of up to so many values is shown with them


class Property(ABC):
    """One thing that a right answer does, in words that a learner understands.

    A property holds no state. `cases` and `judge` may run in another process than `drive`, which alone runs beside
    the learner's code.

    Attributes:
        sentence: what holds, for example "blocks are conserved".
        weight: points that it earns.
        time_limit: seconds that one case may take.
        requires: "", "cuda" or "triton": where that is missing the property is not checked.
        in_order: entries of a case that are lists of what is done, in order; of a failing case a learner sees them as
            far as the failure.
    """

    sentence: ClassVar[str]
    weight: ClassVar[float] = 1
    time_limit: ClassVar[float] = 10
    requires: ClassVar[str] = ""
    in_order: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def cases(self, rng: random.Random) -> Iterator[Case]:
        """The inputs, smallest first. The same `rng` gives the same cases."""

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


@dataclass(frozen=True, slots=True)
class Exercise:
    """An exercise of the course: the name of the object that learners write, and what must hold of it.

    A "kernel" is a function that launches Triton kernels: it is driven in a process of its own (kernel_lane.py).

    Attributes:
        twins: functions of the course, each `module:name`, that do the same in another way. Where a submission runs,
            they are stubs as the exercise itself is.

    Raises:
        ValueError: no property, or two with the same sentence.
    """

    name: str
    day: int
    kind: Literal["class", "function", "kernel"]
    properties: tuple[Property, ...]
    twins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sentences = [item.sentence for item in self.properties]
        if not sentences or len(set(sentences)) < len(sentences):
            raise ValueError(f"{self.name} needs at least one property, each with a sentence of its own")

    @property
    def points(self) -> float:
        """Points of a right answer."""
        return float(sum(item.weight for item in self.properties))


def generator(rng: random.Random) -> torch.Generator:
    """A torch generator that draws from `rng`, for tensors in cases."""
    return torch.Generator().manual_seed(rng.getrandbits(48))


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
