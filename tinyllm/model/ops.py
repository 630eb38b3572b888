"""What varies in a decoder layer, and is handed to the model for each step: attention, the experts, and sums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from tinyllm.experts.backends import TorchExperts
from tinyllm.experts.base import RunExperts


class Attend(Protocol):
    """Attention of one step, over whatever cache its owner keeps."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store this step's keys and values, then let each query see its own sequence up to itself.

        Args:
            layer: which of the L layers asks.
            q: [T, Hq, D] queries, normalized and rotated.
            k: [T, Hkv, D] keys, normalized and rotated.
            v: [T, Hkv, D] values.

        Returns:
            [T, Hq, D]: for each query, softmax(q k / sqrt(D)) v.
        """
        ...


def unchanged(x: Tensor) -> Tensor:
    """The sum over one rank."""
    return x


@dataclass(frozen=True, slots=True)
class LayerOps:
    """The operations of one step that a layer calls and does not own.

    Attributes:
        attend: attention, over the caller's cache.
        experts: runs the experts of a sparse layer; by default in torch, one expert after another.
        reduce: [T, hidden_size], what attention or a dense MLP of this rank's part gave -> the sum over all ranks. A
            sparse layer's `experts` give the sum themselves.
    """

    attend: Attend
    experts: RunExperts = field(default_factory=TorchExperts)
    reduce: Callable[[Tensor], Tensor] = unchanged
