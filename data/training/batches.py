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

Draw = Callable[[Random, float], Sample]  # (rng, progress in 0..1) -> a sample


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows of samples in pieces: the rows of a piece are of one length, padded at the end.

    Attributes:
        shapes: rows and length of each piece.
        input_ids: [T] the rows of all pieces, one after another, and what fills the shard up.
        at: [n] places in the shard from which the next token is predicted.
        labels: [n] the tokens that come next there.
        weights: [n] how much each counts.
    """

    shapes: tuple[tuple[int, int], ...]
    input_ids: Tensor
    at: Tensor
    labels: Tensor
    weights: Tensor

    @property
    def positions(self) -> Tensor:
        """[T] the place of each token in its row."""
        positions = torch.zeros_like(self.input_ids)
        start = 0
        for rows, length in self.shapes:
            end = start + rows * length
            positions[start:end].view(rows, length)[:] = torch.arange(length, device=positions.device)
            start = end
        return positions


def shard_of(*pieces: list[Encoded], fill_to: int = 0) -> Shard:
    """Pad the rows of each piece to its longest, and list the predictions that have a weight.

    Args:
        pieces: rows that are to be of one length each.
        fill_to: T at least, so that every shard can have the same.
    """
    shapes = tuple((len(rows), max(len(row.ids) for row in rows)) for rows in pieces)
    num_tokens = max(fill_to, sum(rows * length for rows, length in shapes))
    ids, weights = torch.zeros(num_tokens, dtype=torch.long), torch.zeros(num_tokens)
    start = 0
    for rows, (_, length) in zip(pieces, shapes, strict=True):
        for row in rows:
            ids[start : start + len(row.ids)] = torch.from_numpy(row.ids)
            weights[start : start + len(row.ids)] = torch.from_numpy(row.weights)
            start += length
    following = weights.nonzero().flatten()  # a row's first token has no weight, so no row reads the one before it
    return Shard(shapes, ids, following - 1, ids[following], weights[following])


@dataclass(frozen=True, slots=True)
class Packed:
    """Many shards as four tensors, which go from a worker to a GPU in four copies."""

    shapes: list[tuple[tuple[int, int], ...]]
    num_tokens: list[int]
    num_predictions: list[int]
    tensors: tuple[Tensor, Tensor, Tensor, Tensor]

    @classmethod
    def of(cls, shards: list[Shard]) -> Packed:
        """Pack; the order is kept."""
        columns = tuple(zip(*((s.input_ids, s.at, s.labels, s.weights) for s in shards), strict=True))
        ids, at, labels, weights = (torch.cat(column) for column in columns)
        num_tokens, num_predictions = ([len(x) for x in column] for column in columns[:2])
        return cls([s.shapes for s in shards], num_tokens, num_predictions, (ids, at, labels, weights))

    def shards(self, device: torch.device) -> list[Shard]:
        """The shards, on `device`."""
        ids, *predictions = (tensor.to(device) for tensor in self.tensors)
        columns = (ids.split(self.num_tokens), *(column.split(self.num_predictions) for column in predictions))
        return [Shard(*parts) for parts in zip(self.shapes, *columns, strict=True)]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of what goes into a training run.

    Attributes:
        steps: optimizer steps in all.
        shards: parts of a batch, worked on side by side.
        pieces: parts of a shard; the samples of one are of like length, those of two are not.
        tokens_per_piece: rows x length of a piece at most. A shard of several is filled up to as many times that: all
            are of one size then, for which the layers are compiled.
        max_length: the longest sample, in tokens; longer ones are cut.
        seed: of the samples.
        steps_per_chunk: samples of this many steps are drawn together and sorted by length.
    """

    steps: int
    shards: int
    pieces: int
    tokens_per_piece: int
    max_length: int
    seed: int
    steps_per_chunk: int = 32


class Chunks(Dataset[Packed]):
    """Chunk i holds the batches of some consecutive steps. It follows from the seed and i alone."""

    def __init__(self, plan: Plan, draw: Draw, encoder: Encoder) -> None:
        self.plan, self.draw, self.encoder = plan, draw, encoder

    def __len__(self) -> int:
        return -(-self.plan.steps // self.plan.steps_per_chunk)

    def __getitem__(self, index: int) -> Packed:
        plan = self.plan
        rng = Random(f"{plan.seed} {index}")
        progress = index / len(self)
        wanted = plan.steps_per_chunk * plan.shards * plan.pieces
        rows: list[Encoded] = []
        groups: list[list[Encoded]] = []
        while len(groups) < wanted:
            missing = (wanted - len(groups) + 1) * plan.tokens_per_piece
            while missing > 0:
                rows.append(self.encoder.encode(self.draw(rng, progress), rng, plan.max_length))
                missing -= len(rows[-1].ids)
            groups = grouped(rows, plan.tokens_per_piece)
        start = rng.randrange(len(groups) - wanted + 1)
        groups = groups[start : start + wanted]
        rng.shuffle(groups)  # so that short samples and long ones, and with them the tasks, meet in one step
        fill_to = plan.pieces * plan.tokens_per_piece if plan.pieces > 1 else 0
        parts = [groups[i : i + plan.pieces] for i in range(0, wanted, plan.pieces)]
        return Packed.of([shard_of(*part, fill_to=fill_to) for part in parts])


def grouped(rows: list[Encoded], budget: int) -> list[list[Encoded]]:
    """Rows sorted by length and cut into groups whose padded size stays within `budget` tokens."""
    groups: list[list[Encoded]] = [[]]
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if groups[-1] and (len(groups[-1]) + 1) * len(row.ids) > budget:
            groups.append([])
        groups[-1].append(row)
    return groups


def batches(
    plan: Plan,
    draw: Draw,
    encoder: Encoder,
    first_step: int,
    workers: int,
    device: torch.device | str = "cpu",
) -> Iterator[list[Shard]]:
    """The batches of steps `first_step` to the end, on `device`; the same for any number of `workers`."""
    chunks = Chunks(plan, draw, encoder)
    first = first_step // plan.steps_per_chunk
    loader: DataLoader[Packed] = DataLoader(
        chunks,
        batch_size=None,
        sampler=range(first, len(chunks)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    skip = first_step - first * plan.steps_per_chunk
    for chunk in loader:
        shards = chunk.shards(torch.device(device))
        of_steps = [shards[i : i + plan.shards] for i in range(0, len(shards), plan.shards)]
        yield from of_steps[skip:]
        skip = 0
