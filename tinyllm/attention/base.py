"""What the engine asks of a way to compute attention over the paged cache."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from tinyllm.attention.metadata import AttentionMetadata
from tinyllm.model.ops import Attend


class AttentionBackend(ABC):
    """A way to compute attention over the paged cache.

    Attributes:
        supports_cuda_graphs: a step in which all sequences have equally many new tokens neither waits for the GPU nor
            takes a shape or a Python number from a tensor's values, and it leaves padding (slot -1, context length 0)
            alone.
    """

    supports_cuda_graphs: bool = False

    @abstractmethod
    def plan(self, metadata: AttentionMetadata, cache: Any) -> Attend:
        """Prepare one step, once for all layers.

        Args:
            metadata: where the step's tokens belong.
            cache: the `PagedKVCache`, the reference's or a learner's.

        Returns:
            The function that every layer calls with its q, k and v.
        """
