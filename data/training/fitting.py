"""How long a step takes on this machine, by trying: so that a run can be told its minutes instead of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch

from data.training.batches import Shard
from data.training.loop import Run, make_ready, step_pool, take_step
from data.training.loss import Loss

WARM_UP, COUNTED = 6, 24
TRIAL_STEPS = 2 * (WARM_UP + COUNTED)


def seconds_of(work: Callable[[], object]) -> float:
    """The time that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def seconds_a_step(run: Run, stream: Callable[[], Iterator[list[Shard]]], loss: Loss, device: torch.device) -> float:
    """The mean over a whole run, of which a run that grows has half of its steps at each depth.

    Args:
        run: is spoilt by the trial: start anew afterwards.
        stream: makes the batches, as hard as they get in the run itself.
        loss: as in the run itself.
        device: where the model is.
    """
    taken = [_seconds_a_step(run, stream(), loss, device)]
    if run.grow_at is not None:
        run.grow()
        taken.append(_seconds_a_step(run, stream(), loss, device))
    return sum(taken) / len(taken)


def _seconds_a_step(run: Run, batches: Iterator[list[Shard]], loss: Loss, device: torch.device) -> float:
    make_ready(run, device)
    with step_pool(device) as pool:

        def go(steps: int) -> None:
            for _ in range(steps):
                take_step(run, next(batches), loss, pool, device)
            if device.type == "cuda":
                torch.cuda.synchronize()

        go(WARM_UP)  # compiles
        return seconds_of(lambda: go(COUNTED)) / COUNTED
