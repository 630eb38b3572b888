"""How each of the three models is made: what it starts from, what it learns from, and its batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from random import Random

import torch

from data.tasks.sample import Sample
from data.training.batches import Draw, Plan, Shard, batches
from data.training.compiled import compile_layers
from data.training.encode import Encoder
from data.training.loop import Run
from data.training.loss import Loss, balanced_loss, distillation_loss, next_token_loss
from data.training.mixture import draw, sample_of
from data.training.presets import MAX_LENGTH, Preset
from data.training.shapes import add_task_vector, new_model, with_experts
from tinyllm.model.loader import load_model

NUM_EXPERTS, NUM_EXPERTS_PER_TOK, SPARSE_STEP = 8, 2, 5
MOE_RATE = 0.25  # of the peak learning rates: the mixture begins with what the target knows
BALANCE = 0.02  # what uneven routing costs
MOSTLY = 0.6  # share of the samples of the one task that a run is to be mostly of


class Name(StrEnum):
    """What can be trained; the other two need the target."""

    target = "target"
    draft = "draft"
    moe = "moe"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model to be made.

    Attributes:
        name: which.
        preset: its size and its batches.
        out: the folder that holds a folder for each model.
        seed: of the samples and the first weights.
        device: where it is trained.
        further: a finished model is trained on.
        upcycled_from: for the mixture, the target as it was when the mixture was upcycled from it.
        mostly: a task that most samples are of, as a key of `mixture.SHARES`, or none.
    """

    name: Name
    preset: Preset
    out: Path
    seed: int
    device: torch.device
    further: bool = False
    upcycled_from: Path | None = None
    mostly: str | None = None

    @property
    def folder(self) -> Path:
        """Where the model is."""
        return self.out / self.name

    def start(self, steps: int) -> Run:
        """The model before its first step."""
        device, preset, peak, grow_at = self.device, self.preset, 1.0, None
        if self.further:
            model, peak = load_model(self.folder, device=device).requires_grad_(True), preset.further_rate
            if self.upcycled_from is not None:
                before, since = (load_model(folder, device=device) for folder in (self.upcycled_from, self.target))
                add_task_vector(model, before, since)
        elif self.name is Name.target:
            model, grow_at = new_model(preset.half_target, self.seed), steps // 2
        elif self.name is Name.draft:
            model = new_model(preset.draft, self.seed)
        else:
            dense = load_model(self.target)
            model, peak = with_experts(dense, NUM_EXPERTS, NUM_EXPERTS_PER_TOK, SPARSE_STEP, self.seed), MOE_RATE
        return Run(model.to(device), steps, grow_at=grow_at, peak=peak, side_by_side=preset.shards)

    def lesson(self, run: Run) -> tuple[Loss, Draw]:
        """What the model learns from: its loss and its samples. One that is trained already needs no easy start."""
        samples: Draw = hard if self.further or self.name is Name.moe else draw
        if self.mostly is not None:
            samples = partial(mostly_of, self.mostly)
        if self.name is Name.target:
            return next_token_loss, samples
        if self.name is Name.moe:
            return balanced_loss(run.model, BALANCE), samples
        teacher = load_model(self.target, device=self.device)
        if self.device.type == "cuda":
            compile_layers(teacher)
        return distillation_loss(teacher), samples

    def batches(self, run: Run, samples: Draw, encoder: Encoder) -> Iterator[list[Shard]]:
        """Those of the steps that are left."""
        preset = self.preset
        plan = Plan(
            steps=run.steps,
            shards=preset.shards,
            pieces=preset.pieces,
            tokens_per_piece=preset.tokens_per_piece,
            max_length=MAX_LENGTH,
            seed=self.seed,
            steps_per_chunk=preset.steps_per_chunk,
        )
        return batches(plan, samples, encoder, run.step, preset.workers, self.device)

    @property
    def target(self) -> Path:
        """The target's folder."""
        return self.out / Name.target


def hard(rng: Random, progress: float) -> Sample:
    """A sample as hard as they get, however far the run is."""
    return draw(rng, 1.0)


def mostly_of(task: str, rng: Random, progress: float) -> Sample:
    """Like `hard`, but most samples are of one task."""
    return sample_of(task, rng) if rng.random() < MOSTLY else hard(rng, progress)
