"""Where our engine's time goes: the parts of its steps, the operators of torch, and the machine's floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from benchmarks.floor import floor, machine_rates, work
from benchmarks.stopwatch import MODEL_PARTS, OTHER_PARTS, nothing, watch
from tinyllm.engine.engine import LLMEngine
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.traces import TraceRequest

#: Steps that torch's profiler looks at, in the middle of the run; and operators that are written down.
PROFILED_STEPS = 20
NUM_OPERATORS = 12


class Served(Protocol):
    """What can be profiled: a model, and engines that serve a trace with it."""

    model: Qwen3ForCausalLM

    def engine(self, trace: Sequence[TraceRequest]) -> LLMEngine:
        """An engine with all requests in its queue."""


class MachineSizes(Protocol):
    """Sizes of the measurements of the machine."""

    @property
    def matmul_size(self) -> int:
        """See `machine_rates`."""

    @property
    def copy_bytes(self) -> int:
        """See `machine_rates`."""


def synchronizer(device: str) -> Callable[[], object]:
    """What waits for the device's work."""
    return torch.cuda.synchronize if device == "cuda" else nothing


def profile(
    ours: Served, trace: Sequence[TraceRequest], num_steps: int, taken: float, sizes: MachineSizes, device: str
) -> dict[str, Any]:
    """Profile two more runs and print what came out.

    Args:
        num_steps, taken: steps and seconds of a run that nobody watched.
    """
    wait = synchronizer(device)
    rates = machine_rates(device, sizes.matmul_size, sizes.copy_bytes, wait)
    found = {
        "parts": step_parts(ours.engine(trace), wait),
        "operators": operators(ours.engine(trace), num_steps, device),
        "floor": floor(rates, work(ours.model, trace, num_steps), taken),
    }
    print(as_text(found))
    return found


def step_parts(engine: LLMEngine, wait: Callable[[], object]) -> dict[str, dict[str, float]]:
    """The seconds of a whole run by part of the step, and each part's share."""
    with watch(engine, wait) as stopwatch:
        while engine.has_unfinished:
            engine.step()
    seconds = stopwatch.lap()
    total = sum(seconds.values())
    parts = (*MODEL_PARTS, *OTHER_PARTS)
    return {part: {"seconds": seconds.get(part, 0.0), "share": seconds.get(part, 0.0) / total} for part in parts}


def operators(engine: LLMEngine, num_steps: int, device: str) -> dict[str, Any]:
    """The torch operators that take most of the time of some steps in the middle of a run."""
    first = max(0, (num_steps - PROFILED_STEPS) // 2)
    for _ in range(first):
        engine.step()
    steps = 0
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with torch_profile(activities=activities) as profiler:
        while engine.has_unfinished and steps < PROFILED_STEPS:
            engine.step()
            steps += 1
    events = profiler.key_averages()

    def microseconds(event: Any) -> float:
        return float(event.self_device_time_total if device == "cuda" else event.self_cpu_time_total)

    total = sum(map(microseconds, events)) or 1.0
    heaviest = sorted(events, key=microseconds, reverse=True)[:NUM_OPERATORS]
    return {
        "steps": steps,
        "running": engine.step_records[-steps].num_running,
        "calls_per_step": sum(event.count for event in events) / steps,
        "heaviest": [
            {"name": event.key, "share": microseconds(event) / total, "calls_per_step": event.count / steps}
            for event in heaviest
        ],
    }


def as_text(found: dict[str, Any]) -> str:
    """The profile as a table for people."""
    floors = found["floor"]
    return "\n".join(
        [
            "part of the step       seconds   share",
            *[f"  {part:<20}{row['seconds']:8.2f}  {row['share']:6.1%}" for part, row in found["parts"].items()],
            f"torch operators, {found['operators']['calls_per_step']:.0f} calls a step",
            *[
                f"  {row['name'][:44]:<44}{row['share']:6.1%}{row['calls_per_step']:8.1f} calls"
                for row in found["operators"]["heaviest"]
            ],
            f"floor {floors['floor_seconds']:.2f} s (arithmetic {floors['compute_seconds']:.2f}, "
            f"memory {floors['memory_seconds']:.2f}): {floors['floor_share']:.1%} of what the run took",
        ]
    )
