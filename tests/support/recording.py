"""A stand-in for CUDA graphs on the CPU, and an attention backend that can be recorded by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tinyllm.attention.base import AttentionBackend
from tinyllm.attention.metadata import AttentionMetadata
from tinyllm.model.ops import Attend

aten = torch.ops.aten
#: What takes a Python number or a shape from values (the GPU would have to be waited for), or copies from Python.
FORBIDDEN = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.lift_fresh.default,
    aten.bincount.default,
}


class CannotRecord(RuntimeError):
    """The step has an operation that a CUDA graph cannot hold."""


class Recording(TorchDispatchMode):
    """Writes down every operation with its very tensors, and does them again into the same memory, as a graph does."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FORBIDDEN or (func is aten.index.Tensor and any(is_mask(index) for index in args[1])):
            raise CannotRecord(str(func))
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        """Do all of it again."""
        for func, args, kwargs, out in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def is_mask(index: Tensor | None) -> bool:
    """Whether an index picks as many rows as it holds True."""
    return index is not None and index.dtype == torch.bool


def record(step: Callable[[], object]) -> Callable[[], object]:
    """A `Capture` for the CPU."""
    with Recording() as recording:
        step()
    return recording.replay


class CapturableAttention(AttentionBackend):
    """Attention of uniform steps without a shape or number from values; it leaves padding alone. For tiny pools.

    Values outside a sequence are selected away and not multiplied by 0, so that NaN there does no harm.
    """

    supports_cuda_graphs = True

    def plan(self, metadata: AttentionMetadata, cache: Any) -> Attend:
        """See `AttentionBackend.plan`."""
        size, (batch, width) = metadata.block_size, metadata.block_tables.shape
        query_len = metadata.max_query_len
        assert metadata.slot_mapping.shape == (batch * query_len,), "equally many new tokens a sequence"
        positions = torch.arange(width * size)
        slots = metadata.block_tables[:, positions // size].long() * size + positions % size
        slots = slots.repeat_interleave(query_len, 0)  # [T, W * P]
        own = metadata.context_lens[:, None] - query_len + torch.arange(query_len)  # [B, query_len]
        inside = positions <= own.view(-1, 1)  # [T, W * P]
        goes_to = metadata.slot_mapping == torch.arange(cache.k.shape[1])[:, None]  # [N * P, T]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for pool, new in ((cache.k[layer], k), (cache.v[layer], v)):
                pool.copy_(torch.where(goes_to.any(1)[:, None, None], new[goes_to.byte().argmax(1)], pool))
            gathered = (torch.where(inside[..., None, None], pool[layer][slots], 0) for pool in (cache.k, cache.v))
            keys, values = (x.repeat_interleave(q.shape[1] // k.shape[1], 2) for x in gathered)
            scores = torch.einsum("bhd,bshd->bhs", q, keys) * q.shape[-1] ** -0.5
            weights = scores.masked_fill(~inside[:, None], torch.finfo(q.dtype).min).softmax(-1)
            return torch.einsum("bhs,bshd->bhd", weights, values)  # zeros where a context is empty

        return attend
