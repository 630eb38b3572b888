"""CUDA graphs for decode and verification: steps in which all sequences have equally many new tokens.

Such a step is hundreds of short kernels, and launching each from Python takes longer than most of them run. A CUDA
graph is a recording of launches that the GPU starts with one call. It fixes what was fixed when it was recorded: the
kernels, their grids and shapes, the addresses they read and write, and every Python number. Only what lies at those
addresses may change. So the inputs of a step are copied into static buffers, and the batch is padded up to the next
size for which there is a recording with as many tokens a sequence.

A row of padding has slot -1: its K and V are stored nowhere. Its context length is 0, so that it attends to nothing;
where sequences have several tokens it is their number, which must fit into a context. It touches neither the pool nor
another row.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyllm.attention.metadata import AttentionMetadata
from tinyllm.engine.scheduler_output import ScheduledRequest

#: From input_ids [T], positions [T] and metadata to the hidden states [T, hidden_size].
Forward = Callable[[Tensor, Tensor, AttentionMetadata], Tensor]
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

    All are recorded on one side stream, because cuBLAS keeps a workspace for each stream that it sees.
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
    """Runs uniform steps of one model over one KV pool: a recording for each padded batch size and query length.

    The static buffers, for S = `max_batch` sequences, Q = `max_query_len` and W = `max_blocks`: input_ids, positions
    and slot_mapping [S * Q] int64, context_lens [S] and block_tables [S, W] int32, and the result, hidden
    [S * Q, hidden_size]. Sequences of q tokens make query_start_loc the same in every step: 0, q, 2q, ...

    Weights and pool are recorded by address: to move or replace them makes the recordings wrong. The width W is
    recorded too, so what a backend decides by the longest context there may be, as Triton's splits, it decides for W.

    Attributes:
        recorded: what repeats a step, by padded batch size and query length; made on first use.
    """

    def __init__(
        self,
        forward: Forward,
        hidden: Tensor,
        block_size: int,
        *,
        max_batch: int,
        max_blocks: int,
        max_query_len: int = 1,
        capture: Capture,
    ) -> None:
        """Reserve the static buffers.

        Args:
            forward: the step itself.
            hidden: [..., hidden_size], any tensor that is like what `forward` returns.
            block_size: P.
            max_batch: S, most sequences of a step.
            max_blocks: W, most blocks of a sequence.
            max_query_len: Q, most tokens of a sequence in a step: one, and its drafts.
            capture: how a step is recorded: `CudaCapture`, or another for tests without a GPU.
        """
        self.forward, self.block_size, self.capture = forward, block_size, capture
        self.max_batch, self.max_blocks, self.max_query_len = max_batch, max_blocks, max_query_len
        max_tokens = max_batch * max_query_len
        on_device: Any = {"device": hidden.device}
        self.input_ids = torch.zeros(max_tokens, dtype=torch.int64, **on_device)
        self.positions = torch.zeros(max_tokens, dtype=torch.int64, **on_device)
        self.slot_mapping = torch.full((max_tokens,), -1, dtype=torch.int64, **on_device)
        self.context_lens = torch.zeros(max_batch, dtype=torch.int32, **on_device)
        self.block_tables = torch.zeros(max_batch, max_blocks, dtype=torch.int32, **on_device)
        counts = torch.arange(max_batch + 1, dtype=torch.int32, **on_device)
        self.query_start_loc = {query_len: counts * query_len for query_len in range(1, max_query_len + 1)}
        self.hidden = hidden.new_zeros(max_tokens, hidden.shape[-1])
        self._sizes = graph_sizes(max_batch)
        self.recorded: dict[tuple[int, int], Step] = {}

    @property
    def recorded_sizes(self) -> list[int]:
        """The padded batch sizes that have been recorded so far, at any query length."""
        return sorted({size for size, _ in self.recorded})

    def can_replay(self, scheduled: Sequence[ScheduledRequest]) -> bool:
        """Whether a step is uniform, and has neither more sequences nor more tokens nor more blocks than there are.

        One request may have more continuations than `max_num_seqs` allows requests, and a learner's block table may
        hold more blocks than it needs; such steps run eagerly.
        """
        query_len = scheduled[0].num_tokens
        return (
            len(scheduled) <= self.max_batch
            and query_len <= self.max_query_len
            and all(item.num_tokens == query_len and len(item.block_ids) <= self.max_blocks for item in scheduled)
        )

    def run(self, input_ids: Tensor, positions: Tensor, metadata: AttentionMetadata) -> Tensor:
        """Compute one step of B sequences with q tokens each.

        Args:
            input_ids, positions, metadata: the batch as `build_batch` lays it out, on the CPU.

        Returns:
            [B * q, hidden_size], a view of the static result: the next step overwrites it. The logits are left to the
            caller. In float32 they are the largest tensor of a step by far, and only real rows need them.
        """
        batch, query_len = len(metadata.context_lens), metadata.max_query_len
        key = padded_size(batch, self._sizes), query_len
        self._fill(*key, input_ids, positions, metadata)
        if key not in self.recorded:
            self.recorded[key] = self.capture(partial(self._compute, *key))
        self.recorded[key]()
        return self.hidden[: batch * query_len]

    def _fill(
        self, size: int, query_len: int, input_ids: Tensor, positions: Tensor, metadata: AttentionMetadata
    ) -> None:
        """Copy a batch into the first rows of the static buffers and turn the rows up to `size` into padding.

        Table entries past a context are never read, so what stands there from earlier steps may stay.
        """
        for buffer, values, rows, fill in (
            (self.input_ids, input_ids, size * query_len, 0),
            (self.positions, positions, size * query_len, 0),
            (self.slot_mapping, metadata.slot_mapping, size * query_len, -1),
            (self.context_lens, metadata.context_lens, size, 0 if query_len == 1 else query_len),
        ):
            buffer[:rows].copy_(F.pad(values, (0, rows - len(values)), value=fill), non_blocking=True)
        batch, width = metadata.block_tables.shape
        self.block_tables[:batch, :width].copy_(metadata.block_tables, non_blocking=True)

    def _compute(self, size: int, query_len: int) -> None:
        """The step that is recorded: from the first rows of the static inputs to those of the result."""
        rows = size * query_len
        metadata = AttentionMetadata(
            query_start_loc=self.query_start_loc[query_len][: size + 1],
            context_lens=self.context_lens[:size],
            block_tables=self.block_tables[:size],
            slot_mapping=self.slot_mapping[:rows],
            block_size=self.block_size,
            min_query_len=query_len,
            max_query_len=query_len,
        )
        self.hidden[:rows].copy_(self.forward(self.input_ids[:rows], self.positions[:rows], metadata))
