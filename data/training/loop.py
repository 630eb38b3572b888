"""The training loop: steps, a log, and a state on disk from which a stopped run goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from data.training.batches import Shard
from data.training.loss import Loss, add_gradients
from data.training.optimizer import Optimizer, rate
from data.training.shapes import with_layers_doubled
from tinyllm.config import ModelConfig
from tinyllm.model.qwen3 import Qwen3ForCausalLM

LOG_EVERY = 50  # steps


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
) -> None:
    """Train until the last step.

    Args:
        batches: those of the steps from `run.step` on.
        state: where the run is saved every `save_every` steps, with what `probe` measures.
    """
    recent: list[tuple[float, int]] = []
    started = time.perf_counter() - run.seconds
    progress = tqdm(initial=run.step, total=run.steps, desc=description, unit="step", mininterval=2)
    autocast = has_fast_bfloat16(device)
    with ThreadPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool, progress:
        for batch in batches:
            if run.grow_at is not None and run.step >= run.grow_at:
                run.grow()
            shards = [shard.to(device) for shard in batch]
            mean = add_gradients(run.model, shards, loss, pool, autocast)
            run.optimizer.step(rate(run.step, run.steps), pool)
            run.step += 1
            progress.update()
            recent.append((mean, sum(len(shard.labels) for shard in shards)))
            run.seconds = time.perf_counter() - started
            last = run.step == run.steps
            save = last or run.step % save_every == 0
            if save or run.step % LOG_EVERY == 0:
                entry: dict[str, Any] = {
                    "step": run.step,
                    "predictions": sum(count for _, count in recent),
                    "loss": round(sum(value for value, _ in recent) / len(recent), 4),
                    "seconds": round(run.seconds, 1),
                }
                recent.clear()
                run.log.append(entry)
                progress.set_postfix(loss=entry["loss"])
                if save:
                    entry["answers_right"] = probe(run.model)
                    tqdm.write(f"step {run.step}: loss {entry['loss']}, right {entry['answers_right']}")
                    run.save(state)
            if last:
                break
