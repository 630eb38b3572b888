"""Attention over the paged cache by Triton kernels, and the choice between the backends."""

from __future__ import annotations

from functools import cache as memoised
from typing import Any

import torch
from torch import Tensor

from tinyllm.config import check_attention_backend
from tinyllm.engine.attention import AttentionBackend, TorchAttention
from tinyllm.engine.attention_native import NativeAttention
from tinyllm.engine.metadata import AttentionMetadata
from tinyllm.errors import OptionError
from tinyllm.kernels.paged_decode_split import choose_split_size
from tinyllm.kernels.runtime import AVAILABLE, INTERPRETED, check_device
from tinyllm.model.qwen3 import Attend
from tinyllm.parts import Parts, resolve


class TritonAttention(AttentionBackend):
    """Store with one kernel, then attend: decodes, in splits where the batch is small, and chunks of prompt.

    Where every sequence has one new token, a step neither waits for the GPU nor takes a shape from its values, as a
    CUDA graph needs it. The kernels read and write the tensors `k` and `v` of the cache: its methods `write` and
    `gather`, the reference's or a learner's, are not called.

    Attributes:
        sliding_window: a token sees itself and the `sliding_window - 1` before it; None for all.
        split_size: positions of a split in decode; None to choose by the size of the batch and the GPU.
    """

    def __init__(
        self, sliding_window: int | None = None, split_size: int | None = None, parts: Parts | None = None
    ) -> None:
        """Take the kernels from `parts`, by default the reference's."""
        parts = parts or resolve()
        self.supports_cuda_graphs = not INTERPRETED
        self.sliding_window = sliding_window
        self.split_size = split_size
        self._store, self._prefill = parts["store_kv"], parts["paged_prefill"]
        self._decode, self._decode_split = parts["paged_decode"], parts["paged_decode_split"]

    def plan(self, metadata: AttentionMetadata, cache: Any) -> Attend:
        """See `AttentionBackend.plan`."""
        max_query_len, has_decodes = query_lens(metadata)
        split_size = self._split_size(metadata, cache) if has_decodes else None
        window = self.sliding_window
        where = (metadata.block_tables, metadata.context_lens, metadata.query_start_loc, metadata.block_size)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            k_cache, v_cache = cache.k[layer], cache.v[layer]
            self._store(k, v, k_cache, v_cache, metadata.slot_mapping)
            out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
            if has_decodes and split_size is not None:
                self._decode_split(q, k_cache, v_cache, *where, split_size=split_size, sliding_window=window, out=out)
            elif has_decodes:
                self._decode(q, k_cache, v_cache, *where, sliding_window=window, out=out)
            if max_query_len > 1:
                self._prefill(
                    q,
                    k_cache,
                    v_cache,
                    *where,
                    max_query_len=max_query_len,
                    min_query_len=2,
                    sliding_window=window,
                    out=out,
                )
            return out

        return attend

    def _split_size(self, metadata: AttentionMetadata, cache: Any) -> int | None:
        """The split size for this batch; from shapes alone, so that nothing waits for the GPU."""
        if self.split_size is not None:
            return self.split_size
        max_context = metadata.block_tables.shape[1] * metadata.block_size
        if self.sliding_window is not None:
            max_context = min(max_context, self.sliding_window)
        num_programs = metadata.context_lens.shape[0] * cache.k.shape[2]
        return choose_split_size(num_programs, max_context, num_processors(cache.k.device))


def query_lens(metadata: AttentionMetadata) -> tuple[int, bool]:
    """The most new tokens of a sequence, each of which has at least one, and whether any has exactly one."""
    if metadata.slot_mapping.shape == metadata.context_lens.shape:
        return 1, True  # as many tokens as sequences: one each
    lens = metadata.query_start_loc.diff().tolist()
    return max(lens), 1 in lens


@memoised
def num_processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 1 for the interpreter, which runs one program at a time."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def attention_backend(
    name: str, device: str | torch.device, parts: Parts | None = None, dtype: torch.dtype = torch.float32
) -> AttentionBackend:
    """A backend by name.

    "torch" runs everywhere; "triton" where its kernels do; "native" is the C kernel for float32 on the CPU, which needs
    a C compiler; "auto" is Triton where it compiles for CUDA and torch elsewhere.

    Args:
        parts: what the backend is made of; the reference by default.
        dtype: of the pool.

    Raises:
        OptionError: an unknown name, or "native" for another device or dtype.
        KernelsUnavailable: "triton" where there is no Triton, or where it can run nothing on this device.
        NativeUnavailable: "native" where the C kernel cannot be compiled.
    """
    check_attention_backend(name)
    device = torch.device(device)
    if name == "triton":
        check_device(device)
        return TritonAttention(parts=parts)
    if name == "auto" and device.type == "cuda" and kernels_compile():
        return TritonAttention(parts=parts)
    plain = (parts or resolve())["paged_attention"]
    if name != "native":
        return TorchAttention(plain)
    if (device.type, dtype) != ("cpu", torch.float32):
        raise OptionError(f"the native attention backend is for float32 on the CPU, not {dtype} on {device}")
    return NativeAttention(plain)


def kernels_compile() -> bool:
    """Whether Triton is here and compiles; its interpreter is for checking, thousands of times too slow to serve."""
    return AVAILABLE and not INTERPRETED
