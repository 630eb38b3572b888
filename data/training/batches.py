"""Batches drawn without end from a seed: samples of like length beside each other, so that little is padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.tasks.sample import Sample
from data.training.encode import Encoded, Encoder

STEPS_PER_CHUNK = 32  # samples of this many steps are drawn together and sorted by length

Draw = Callable[[Random, float], Sample]  # (rng, progress in 0..1) -> a sample


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows of equal length, padded at the end; the predictions that count are listed.

    Attributes:
        input_ids: [B, T].
        at: [n] places in the flattened batch from which the next token is predicted.
        labels: [n] the tokens that come next there.
        weights: [n] how much each counts.
    """

    input_ids: Tensor
    at: Tensor
    labels: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Shard:
        """The same on `device`."""
        return Shard(*(x.to(device, non_blocking=True) for x in (self.input_ids, self.at, self.labels, self.weights)))


def shard_of(rows: list[Encoded]) -> Shard:
    """Pad the rows to the longest and list the predictions that have a weight."""
    length = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    weights = torch.zeros(len(rows), length)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.from_numpy(row.ids)
        weights[i, : len(row.ids)] = torch.from_numpy(row.weights)
    following = weights.flatten().nonzero().flatten()  # a row's first token has no weight, so no row reads the last one
    return Shard(ids, following - 1, ids.flatten()[following], weights.flatten()[following])


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of what goes into a training run.

    Attributes:
        steps: optimizer steps in all.
        shards: parts of a batch, worked on side by side.
        tokens_per_shard: B x T of a shard at most.
        max_length: the longest sample, in tokens; longer ones are cut.
        seed: of the samples.
    """

    steps: int
    shards: int
    tokens_per_shard: int
    max_length: int
    seed: int


class Chunks(Dataset[list[list[Shard]]]):
    """Chunk i holds the batches of steps 32 i to 32 i + 31. It follows from the seed and i alone."""

    def __init__(self, plan: Plan, draw: Draw, encoder: Encoder) -> None:
        self.plan, self.draw, self.encoder = plan, draw, encoder

    def __len__(self) -> int:
        return -(-self.plan.steps // STEPS_PER_CHUNK)

    def __getitem__(self, index: int) -> list[list[Shard]]:
        plan = self.plan
        rng = Random(f"{plan.seed} {index}")
        progress = index / len(self)
        wanted = STEPS_PER_CHUNK * plan.shards
        rows: list[Encoded] = []
        groups: list[list[Encoded]] = []
        while len(groups) < wanted:
            missing = (wanted - len(groups) + 1) * plan.tokens_per_shard
            while missing > 0:
                rows.append(self.encoder.encode(self.draw(rng, progress), rng, plan.max_length))
                missing -= len(rows[-1].ids)
            groups = grouped(rows, plan.tokens_per_shard)
        start = rng.randrange(len(groups) - wanted + 1)
        shards = [shard_of(group) for group in groups[start : start + wanted]]
        batches = [shards[i : i + plan.shards] for i in range(0, len(shards), plan.shards)]
        rng.shuffle(batches)
        return batches


def grouped(rows: list[Encoded], budget: int) -> list[list[Encoded]]:
    """Rows sorted by length and cut into groups whose padded size stays within `budget` tokens."""
    groups: list[list[Encoded]] = [[]]
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if groups[-1] and (len(groups[-1]) + 1) * len(row.ids) > budget:
            groups.append([])
        groups[-1].append(row)
    return groups


def batches(plan: Plan, draw: Draw, encoder: Encoder, first_step: int, workers: int) -> Iterator[list[Shard]]:
    """The batches of steps `first_step` to the end, the same for any number of `workers`."""
    chunks = Chunks(plan, draw, encoder)
    first = first_step // STEPS_PER_CHUNK
    loader: DataLoader[list[list[Shard]]] = DataLoader(
        chunks,
        batch_size=None,
        sampler=range(first, len(chunks)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    skip = first_step - first * STEPS_PER_CHUNK
    for chunk in loader:
        yield from chunk[skip:]
        skip = 0
