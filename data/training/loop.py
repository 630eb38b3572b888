"""The training loop: steps, a log, and a state on disk from which a stopped run goes on."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from data.training.batches import Shard
from data.training.compiled import compile_layers
from data.training.loss import Loss, add_gradients
from data.training.optimizer import Optimizer, rate
from data.training.shapes import with_layers_doubled
from tinyllm.config import ModelConfig
from tinyllm.model.qwen3 import Qwen3ForCausalLM

LOG_EVERY = 50  # steps
PACED = 0.1  # the share of a run whose pace says whether the rest will be in time


@dataclass(slots=True)
class Run:
    """A training run and where it stands.

    Attributes:
        steps: optimizer steps in all.
        grow_at: the step before which the layers are doubled; None keeps the depth (or it is done).
        peak: factor on the learning rates.
        side_by_side: threads that share the optimizer's work.
        log: one entry every 50 steps and where the run was saved: step, predictions that counted, mean loss in nats
            since the entry before, seconds so far.
    """

    model: Qwen3ForCausalLM
    steps: int
    grow_at: int | None = None
    peak: float = 1.0
    side_by_side: int = 1
    step: int = 0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)
    optimizer: Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = self.new_optimizer()

    def new_optimizer(self) -> Optimizer:
        """The optimizers for the model as it is now."""
        return Optimizer(self.model, self.peak, self.side_by_side)

    def grow(self) -> None:
        """Double the layers; the optimizers start anew."""
        self.model = with_layers_doubled(self.model).to(next(self.model.parameters()).device)
        self.optimizer = self.new_optimizer()
        self.grow_at = None

    def shorten(self, steps: int) -> None:
        """End after `steps` in all; a run that is still to grow does so no later than half-way."""
        self.steps = steps
        if self.grow_at is not None:
            self.grow_at = min(self.grow_at, steps // 2)

    def save(self, path: Path) -> None:
        """Write all that `restore` needs, at once or not at all."""
        state = {
            "config": self.model.config.to_hf(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "grow_at": self.grow_at,
            "seconds": self.seconds,
            "log": self.log,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def restore(self, path: Path, device: torch.device) -> None:
        """Go on where `path` was written."""
        state = torch.load(path, map_location=device)
        self.model = Qwen3ForCausalLM(ModelConfig.from_hf(state["config"])).to(device)
        self.model.load_state_dict(state["model"])
        self.optimizer = self.new_optimizer()
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]
        if state["grow_at"] is None:  # else the new run says when
            self.grow_at = None


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 matrices are quicker there than those of float32."""
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()


def make_ready(run: Run, device: torch.device) -> None:
    """Before the first step of a model, or the first since it has grown: on a GPU, have its layers compiled."""
    if device.type == "cuda":
        compile_layers(run.model)


def take_step(run: Run, batch: list[Shard], loss: Loss, pool: ThreadPoolExecutor, device: torch.device) -> Tensor:
    """One optimizer step; returns the mean loss, for which nothing waits."""
    mean = add_gradients(run.model, batch, loss, pool, has_fast_bfloat16(device))
    run.optimizer.step(rate(run.step, run.steps), pool)
    run.step += 1
    return mean


def step_pool(device: torch.device) -> ThreadPoolExecutor:
    """The threads of `take_step`: one for each shard, but a GPU takes one shard after another."""
    threads = 1 if device.type == "cuda" else None
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))


@dataclass(slots=True)
class Pace:
    """How fast a run goes at one depth, and so how many more steps it can take until `deadline`."""

    deadline: float
    since: tuple[float, int] | None = None  # a time and a step: not the first, which waits for samples

    def steps_that_fit(self, run: Run) -> float:
        """Without end as long as too few steps have been taken to tell."""
        now = time.perf_counter()
        if self.since is None:
            self.since = now, run.step
        taken = run.step - self.since[1]
        if taken < PACED * run.steps:
            return math.inf
        return (self.deadline - now) / (now - self.since[0]) * taken


def train(
    run: Run,
    batches: Iterator[list[Shard]],
    loss: Loss,
    *,
    device: torch.device,
    state: Path,
    save_every: int,
    probe: Callable[[Qwen3ForCausalLM], dict[str, float]],
    description: str,
    deadline: float = math.inf,
) -> None:
    """Train until the last step.

    Args:
        batches: those of the steps from `run.step` on, on `device`.
        state: where the run is saved every `save_every` steps, with what `probe` measures.
        deadline: the `time.perf_counter()` by which the last step is to be done. Where the pace is too slow for it, the
            run is shortened, and the learning rate's way down begins earlier.
    """
    recent: list[tuple[Tensor, int]] = []
    started = time.perf_counter() - run.seconds
    pace = Pace(deadline)
    progress = tqdm(initial=run.step, total=run.steps, desc=description, unit="step", mininterval=2)
    make_ready(run, device)
    with step_pool(device) as pool, progress:
        for batch in batches:
            if run.grow_at is not None and run.step >= run.grow_at:
                run.grow()
                make_ready(run, device)
                pace = Pace(deadline)
            mean = take_step(run, batch, loss, pool, device)
            progress.update()
            recent.append((mean, sum(len(shard.labels) for shard in batch)))
            run.seconds = time.perf_counter() - started
            last = run.step == run.steps
            save = last or run.step % save_every == 0
            if save or run.step % LOG_EVERY == 0:
                entry: dict[str, Any] = {
                    "step": run.step,
                    "predictions": sum(count for _, count in recent),
                    "loss": round(torch.stack([value for value, _ in recent]).mean().item(), 4),
                    "seconds": round(run.seconds, 1),
                }
                recent.clear()
                run.log.append(entry)
                progress.set_postfix(loss=entry["loss"])
                if save:
                    entry["answers_right"] = probe(run.model)
                    tqdm.write(f"step {run.step}: loss {entry['loss']}, right {entry['answers_right']}")
                    run.save(state)
                if not last and (fit := pace.steps_that_fit(run)) < run.steps - run.step:
                    run.shorten(run.step + max(1, int(fit)))
                    progress.total = run.steps
            if last:
                break
