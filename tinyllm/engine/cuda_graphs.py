"""CUDA graphs for decode: a step of one new token a sequence, recorded once for each batch size and then replayed.

A decode step is hundreds of short kernels, and launching each from Python takes longer than most of them run. A CUDA
graph is a recording of launches that the GPU starts with one call. It fixes what was fixed when it was recorded: the
kernels, their grids and shapes, the addresses they read and write, and every Python number. Only what lies at those
addresses may change. So the inputs of a step are copied into static buffers, and the batch is padded up to the next
size for which there is a recording.

A row of padding has slot -1 (its K and V are stored nowhere) and context length 0 (it attends to nothing): it touches
neither the pool nor another row.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.engine.attention import AttentionBackend
from tinyllm.engine.metadata import AttentionMetadata
from tinyllm.engine.scheduler import ScheduledRequest
from tinyllm.kv_cache.manager import KVCacheManager
from tinyllm.model.qwen3 import Qwen3ForCausalLM

Step = Callable[[], object]
#: Records a step, which reads and writes static buffers only, and returns what repeats it.
Capture = Callable[[Step], Step]


def graph_sizes(largest: int) -> list[int]:
    """The batch sizes that are recorded, ascending: 1, 2, 4, the multiples of 8 below `largest`, and `largest`."""
    return sorted({size for size in (1, 2, 4, *range(8, largest, 8)) if size < largest} | {largest})


def padded_size(batch: int, sizes: Sequence[int]) -> int:
    """The smallest of the ascending `sizes` that holds `batch` sequences; the last of them must."""
    return sizes[bisect_left(sizes, batch)]


class CudaCapture:
    """Records CUDA graphs that share one pool of memory: they run one after another, so each may reuse it.

    All are recorded on one side stream, because the matrix library keeps a workspace for each stream that it sees.
    """

    def __init__(self, device: torch.device) -> None:
        self._memory_pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def __call__(self, step: Step) -> Step:
        """Run the step once for real, which compiles kernels and sets libraries up, then record it."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            step()
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # "thread_local": another engine's thread may go on allocating memory meanwhile.
        with torch.cuda.graph(graph, self._memory_pool, self._stream, capture_error_mode="thread_local"):
            step()
        return graph.replay


class DecodeGraphs:
    """Runs decode steps of one model over one KV pool, a recording for each padded batch size, made on first use.

    The static buffers, for batches up to S = `max_batch` and W = `max_blocks`: input_ids, positions and slot_mapping
    [S] int64, context_lens [S] and block_tables [S, W] int32, and the result, hidden [S, hidden_size]. One token a
    sequence makes query_start_loc the same in every step: 0, 1, 2, ...

    Weights and pool are recorded by address: to move or replace them makes the recordings wrong. The width W is
    recorded too, so what a backend decides by the longest context there may be, as Triton's splits, it decides for W.
    """

    def __init__(
        self,
        model: Qwen3ForCausalLM,
        kv: KVCacheManager,
        backend: AttentionBackend,
        *,
        max_batch: int,
        max_blocks: int,
        capture: Capture,
    ) -> None:
        """Reserve the static buffers.

        Args:
            max_batch: S, most sequences of a step.
            max_blocks: W, most blocks of a sequence.
            capture: how a step is recorded: `CudaCapture`, or another for tests without a GPU.
        """
        self.model, self.kv, self.backend = model, kv, backend
        self.max_batch, self.max_blocks, self.capture = max_batch, max_blocks, capture
        weight = model.embed_tokens.weight
        on_device: Any = {"device": weight.device}
        self.input_ids = torch.zeros(max_batch, dtype=torch.int64, **on_device)
        self.positions = torch.zeros(max_batch, dtype=torch.int64, **on_device)
        self.slot_mapping = torch.full((max_batch,), -1, dtype=torch.int64, **on_device)
        self.context_lens = torch.zeros(max_batch, dtype=torch.int32, **on_device)
        self.block_tables = torch.zeros(max_batch, max_blocks, dtype=torch.int32, **on_device)
        self.query_start_loc = torch.arange(max_batch + 1, dtype=torch.int32, **on_device)
        self.hidden = torch.zeros(max_batch, model.config.hidden_size, dtype=weight.dtype, **on_device)
        self._sizes = graph_sizes(max_batch)
        self._recorded: dict[int, Step] = {}

    @property
    def recorded_sizes(self) -> list[int]:
        """The padded batch sizes that have been recorded so far."""
        return sorted(self._recorded)

    def takes(self, scheduled: Sequence[ScheduledRequest]) -> bool:
        """Whether a step can be replayed: one token each, and neither more sequences nor more blocks than there are.

        One request may have more continuations than `max_num_seqs` allows requests, and a learner's block table may
        hold more blocks than it needs; such steps run eagerly.
        """
        return len(scheduled) <= self.max_batch and all(
            item.num_tokens == 1 and len(self.kv.table(item.request.request_id).block_ids) <= self.max_blocks
            for item in scheduled
        )

    def run(self, input_ids: Tensor, positions: Tensor, metadata: AttentionMetadata) -> Tensor:
        """Compute one decode step of B sequences.

        Args:
            input_ids, positions, metadata: the batch as `build_batch` lays it out, on the CPU.

        Returns:
            [B, hidden_size], a view of the static result: the next step overwrites it. The logits are left to the
            caller. In float32 they are the largest tensor of a step by far, and only real rows need them.
        """
        batch = len(input_ids)
        size = padded_size(batch, self._sizes)
        self._fill(size, input_ids, positions, metadata)
        if size not in self._recorded:
            self._recorded[size] = self.capture(partial(self._compute, size))
        self._recorded[size]()
        return self.hidden[:batch]

    def _fill(self, size: int, input_ids: Tensor, positions: Tensor, metadata: AttentionMetadata) -> None:
        """Copy a batch into the first rows of the static buffers and turn the rows up to `size` into padding.

        Table entries past a context are never read, so what stands there from earlier steps may stay.
        """
        padding = (0, size - len(input_ids))
        for buffer, values, fill in (
            (self.input_ids, input_ids, 0),
            (self.positions, positions, 0),
            (self.slot_mapping, metadata.slot_mapping, -1),
            (self.context_lens, metadata.context_lens, 0),
        ):
            buffer[:size].copy_(F.pad(values, padding, value=fill), non_blocking=True)
        batch, width = metadata.block_tables.shape
        self.block_tables[:batch, :width].copy_(metadata.block_tables, non_blocking=True)

    def _compute(self, size: int) -> None:
        """The step that is recorded: from the first `size` rows of the static inputs to those of the result."""
        metadata = AttentionMetadata(
            query_start_loc=self.query_start_loc[: size + 1],
            context_lens=self.context_lens[:size],
            block_tables=self.block_tables[:size],
            slot_mapping=self.slot_mapping[:size],
            block_size=self.kv.block_size,
        )
        attend = self.backend.plan(metadata, self.kv.storage)
        self.hidden[:size].copy_(self.model(self.input_ids[:size], self.positions[:size], attend))


def decode_graphs(
    model: Qwen3ForCausalLM, kv: KVCacheManager, backend: AttentionBackend, max_batch: int, max_blocks: int
) -> DecodeGraphs | None:
    """Graphs where they can be had: on CUDA, with a backend that supports them, and no experts.

    A sparse layer counts its experts' tokens on the CPU to split the batch, so its shapes change from step to step.
    """
    device = model.embed_tokens.weight.device
    if device.type != "cuda" or not backend.supports_cuda_graphs or model.config.sparse_layers:
        return None
    return DecodeGraphs(model, kv, backend, max_batch=max_batch, max_blocks=max_blocks, capture=CudaCapture(device))
