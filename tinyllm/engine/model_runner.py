"""From a schedule to one flattened batch, and from the batch to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from tinyllm.attention.base import AttentionBackend
from tinyllm.attention.metadata import AttentionMetadata
from tinyllm.engine.cuda_graphs import CudaCapture, DecodeGraphs
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.experts.backends import TorchExperts
from tinyllm.experts.base import RunExperts
from tinyllm.model.ops import LayerOps, unchanged
from tinyllm.model.qwen3 import Qwen3ForCausalLM


class Runner(ABC):
    """What computes a step."""

    @abstractmethod
    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        """Compute the scheduled tokens.

        Returns:
            [n, V] float32: for each request in order the logits after its last known token and after each of its
            drafts, `ScheduledRequest.num_logits` rows.
        """


class ModelRunner(Runner):
    """Runs the model over the paged cache: uniform steps as CUDA graphs where there are any, all others eagerly.

    A step is all that it gets: it holds the pool's memory, and knows nothing of who owns which block.
    """

    def __init__(
        self,
        model: Qwen3ForCausalLM,
        cache: Any,
        block_size: int,
        backend: AttentionBackend,
        experts: RunExperts | None = None,
    ) -> None:
        """Put together what computes.

        Args:
            cache: the `PagedKVCache`, the reference's or a learner's.
            block_size: P.
            backend: computes attention over it.
            experts: runs the experts of sparse layers; in torch by default.
        """
        self.model = model
        self.cache = cache
        self.block_size = block_size
        self.backend = backend
        self.experts = experts or TorchExperts()
        self.reduce: Callable[[Tensor], Tensor] = unchanged
        self.graphs: DecodeGraphs | None = None

    @torch.inference_mode()
    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        """See `Runner.execute`."""
        device = self.model.head_weight.device
        rows = torch.tensor(logits_rows(scheduled), dtype=torch.int64, device=device)
        if self.graphs is not None and self.graphs.can_replay(scheduled):
            hidden = self.graphs.run(*build_batch(scheduled, self.block_size, torch.device("cpu")))
        else:
            hidden = self.forward(*build_batch(scheduled, self.block_size, device))
        return self.model.compute_logits(hidden[rows])

    def forward(self, input_ids: Tensor, positions: Tensor, metadata: AttentionMetadata) -> Tensor:
        """The step itself: input_ids [T] and positions [T] -> [T, hidden_size]."""
        ops = LayerOps(self.backend.plan(metadata, self.cache), self.experts, self.reduce)
        return self.model(input_ids, positions, ops)

    @property
    def supports_cuda_graphs(self) -> bool:
        """Whether a recording can hold what a step does."""
        can_run_experts = self.experts.supports_cuda_graphs or not self.model.config.sparse_layers
        return self.backend.supports_cuda_graphs and can_run_experts


class DryRunner(Runner):
    """Runs no model: every logit is 0. The schedule and the pool behave as ever, which is all some studies need."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        """See `Runner.execute`."""
        return torch.zeros(sum(item.num_logits for item in scheduled), self.vocab_size)


def decode_graphs(runner: ModelRunner, max_batch: int, max_blocks: int, max_query_len: int) -> DecodeGraphs | None:
    """Graphs for a runner's steps where they can be had: on CUDA, with operations that support them."""
    weight = runner.model.embed_tokens.weight  # [V, hidden_size]
    if weight.device.type != "cuda" or not runner.supports_cuda_graphs:
        return None
    return DecodeGraphs(
        runner.forward,
        weight,
        runner.block_size,
        max_batch=max_batch,
        max_blocks=max_blocks,
        max_query_len=max_query_len,
        capture=CudaCapture(weight.device),
    )


def logits_rows(scheduled: Sequence[ScheduledRequest]) -> list[int]:
    """Where in the flattened batch the positions are whose logits are needed."""
    rows: list[int] = []
    stop = 0
    for item in scheduled:
        stop += item.num_tokens
        rows += range(stop - item.num_logits, stop)
    return rows


def build_batch(
    scheduled: Sequence[ScheduledRequest], block_size: int, device: torch.device
) -> tuple[Tensor, Tensor, AttentionMetadata]:
    """Lay the scheduled tokens one after another, and put them on the model's device.

    Returns:
        input_ids [T] int64, positions [T] int64, and the attention metadata.
    """
    input_ids: list[int] = []
    positions: list[int] = []
    slot_mapping: list[int] = []
    query_start_loc = [0]
    context_lens: list[int] = []
    for item in scheduled:
        request = item.request
        start = request.num_computed_tokens
        stop = start + item.num_tokens
        input_ids += request.token_ids[start:stop]
        input_ids += item.draft_token_ids
        positions += range(start, stop)
        slot_mapping += item.slots
        query_start_loc.append(len(input_ids))
        context_lens.append(stop)
    query_lens = [item.num_tokens for item in scheduled]
    metadata = AttentionMetadata(
        query_start_loc=torch.tensor(query_start_loc, dtype=torch.int32, device=device),
        context_lens=torch.tensor(context_lens, dtype=torch.int32, device=device),
        block_tables=padded([item.block_ids for item in scheduled]).to(device),
        slot_mapping=torch.tensor(slot_mapping, dtype=torch.int64, device=device),
        block_size=block_size,
        min_query_len=min(query_lens),
        max_query_len=max(query_lens),
    )
    return torch.tensor(input_ids, device=device), torch.tensor(positions, device=device), metadata


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """[B, longest] int32, short rows filled up with 0."""
    longest = max(len(row) for row in rows)
    # An array takes ints several times faster than torch.tensor does, and there may be a hundred blocks a sequence.
    flat = array("i", chain.from_iterable((*row, *[0] * (longest - len(row))) for row in rows))
    return torch.frombuffer(flat, dtype=torch.int32).view(len(rows), longest)
