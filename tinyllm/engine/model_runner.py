"""From a schedule to one flattened batch, and from the batch to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from itertools import accumulate, chain

import torch
from torch import Tensor

from tinyllm.engine.attention import AttentionBackend
from tinyllm.engine.cuda_graphs import DecodeGraphs
from tinyllm.engine.metadata import AttentionMetadata
from tinyllm.engine.scheduler import ScheduledRequest
from tinyllm.kv_cache.manager import KVCacheManager
from tinyllm.model.qwen3 import Qwen3ForCausalLM


class Runner(ABC):
    """What computes a step."""

    @abstractmethod
    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        """Compute the scheduled tokens.

        Returns:
            [n, V] float32: the logits after the last known token of each that `finishes_known_tokens`, in order.
        """


class ModelRunner(Runner):
    """Runs the model over the paged cache: decode steps as CUDA graphs where there are any, all others eagerly."""

    def __init__(
        self,
        model: Qwen3ForCausalLM,
        kv: KVCacheManager,
        backend: AttentionBackend,
        graphs: DecodeGraphs | None = None,
    ) -> None:
        self.model = model
        self.kv = kv
        self.backend = backend
        self.graphs = graphs

    @torch.inference_mode()
    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        """See `Runner.execute`."""
        rows = torch.tensor(last_known_tokens(scheduled), dtype=torch.int64, device=self.model.head_weight.device)
        if self.graphs is not None and self.graphs.takes(scheduled):
            hidden = self.graphs.run(*build_batch(scheduled, self.kv, torch.device("cpu")))
        else:
            input_ids, positions, metadata = build_batch(scheduled, self.kv, self.model.head_weight.device)
            hidden = self.model(input_ids, positions, self.backend.plan(metadata, self.kv.storage))
        return self.model.compute_logits(hidden[rows])


class DryRunner(Runner):
    """Runs no model: every logit is 0. The schedule and the pool behave as ever, which is all some studies need."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        """See `Runner.execute`."""
        return torch.zeros(sum(item.finishes_known_tokens for item in scheduled), self.vocab_size)


def last_known_tokens(scheduled: Sequence[ScheduledRequest]) -> list[int]:
    """Where in the flattened batch the last known token is of each request that `finishes_known_tokens`."""
    stops = accumulate(item.num_tokens for item in scheduled)
    items = zip(scheduled, stops, strict=True)
    return [stop - item.num_draft_tokens - 1 for item, stop in items if item.finishes_known_tokens]


def build_batch(
    scheduled: Sequence[ScheduledRequest], kv: KVCacheManager, device: torch.device
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
    block_ids: list[list[int]] = []
    for item in scheduled:
        request = item.request
        start = request.num_computed_tokens
        stop = start + item.num_tokens
        input_ids += request.token_ids[start:stop]
        input_ids += request.draft_token_ids[: item.num_draft_tokens]
        positions += range(start, stop)
        slot_mapping += item.slots
        query_start_loc.append(len(input_ids))
        context_lens.append(stop)
        block_ids.append(kv.table(request.request_id).block_ids)
    metadata = AttentionMetadata(
        query_start_loc=torch.tensor(query_start_loc, dtype=torch.int32, device=device),
        context_lens=torch.tensor(context_lens, dtype=torch.int32, device=device),
        block_tables=padded(block_ids).to(device),
        slot_mapping=torch.tensor(slot_mapping, dtype=torch.int64, device=device),
        block_size=kv.block_size,
    )
    return torch.tensor(input_ids, device=device), torch.tensor(positions, device=device), metadata


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """[B, longest] int32, short rows filled up with 0."""
    longest = max(len(row) for row in rows)
    # An array takes ints several times faster than torch.tensor does, and there may be a hundred blocks a sequence.
    flat = array("i", chain.from_iterable((*row, *[0] * (longest - len(row))) for row in rows))
    return torch.frombuffer(flat, dtype=torch.int32).view(len(rows), longest)
