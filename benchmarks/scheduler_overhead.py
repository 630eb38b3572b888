"""What an engine step costs beside the model: schedule, metadata, attention plan, sampling, bookkeeping.

All requests are in their decode, at one context length. The parts of their steps are timed with the real model, and
with a stand-in that lays out the batch and returns the same logits always, which can have more and longer requests
than there is memory for K and V. How the cost grows with the number of requests and with their length is written
down as an exponent: 1 is proportional, 2 would be quadratic.

    python -m benchmarks.scheduler_overhead            writes benchmarks/results/scheduler_overhead.json, in minutes
    python -m benchmarks.scheduler_overhead --quick    to see that it runs; prints the result, writes nothing
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.record import write_result
from benchmarks.stopwatch import MODEL_PARTS, OTHER_PARTS, outside_model, watch
from tinyllm.attention.base import AttentionBackend
from tinyllm.attention.torch import TorchAttention
from tinyllm.config import CacheConfig, EngineConfig, SamplingParams
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import DryRunner, ModelRunner, Runner, build_batch
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.kv_cache.manager import KVCacheManager
from tinyllm.model.loader import load_model
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.model.tokenizer import Tokenizer
from tinyllm.parts import resolve
from tinyllm.paths import shipped_checkpoint

BLOCK_SIZE = 16
WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured.

    Attributes:
        with_model, stand_in: (running requests, context length) of each case.
        steps: steps of each case whose median is taken.
    """

    with_model: tuple[tuple[int, int], ...] = ((1, 256), (64, 256), (512, 256), (64, 512), (64, 1024), (64, 1900))
    stand_in: tuple[tuple[int, int], ...] = (
        *((1, 256), (8, 256), (64, 256), (512, 256)),
        *((1, 1900), (64, 512), (64, 1024), (64, 1900), (512, 512), (512, 1024), (512, 1900)),
    )
    steps: int = 30


QUICK = Sizes(((1, 32), (8, 32)), ((1, 32), (8, 32), (8, 128)), steps=3)


class StandIn(Runner):
    """Does all that a step needs but the model: lays out the batch, plans attention, returns logits of zero."""

    def __init__(self, kv: KVCacheManager, vocab_size: int, max_num_seqs: int) -> None:
        self.kv = kv
        self.backend: AttentionBackend = TorchAttention()
        self.logits = torch.zeros(max_num_seqs, vocab_size)

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        """See `Runner.execute`."""
        _, _, metadata = build_batch(scheduled, self.kv.block_size, self.logits.device)
        self.backend.plan(metadata, self.kv.storage)
        return self.logits[: sum(item.num_logits for item in scheduled)]


def narrow(model: Qwen3ForCausalLM) -> Qwen3ForCausalLM:
    """A model with the same vocabulary whose K and V take next to no memory; it is never run."""
    return Qwen3ForCausalLM(
        replace(model.config, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=2)
    )


def decoding_engine(
    model: Qwen3ForCausalLM, tokenizer: Tokenizer, num_running: int, context: int, steps: int, seed: int
) -> LLMEngine:
    """An engine whose requests have all had their prompts; no model has run, K and V are zeros."""
    blocks = -(-(context + steps) // BLOCK_SIZE)
    config = EngineConfig(
        CacheConfig(BLOCK_SIZE, num_running * blocks, enable_prefix_caching=False),
        max_num_batched_tokens=num_running * context,
        max_num_seqs=num_running,
    )
    engine = LLMEngine(model, tokenizer, config, resolve(), runner=DryRunner(model.config.vocab_size))
    rng = random.Random(seed)
    params = SamplingParams(max_tokens=steps, ignore_eos=True)
    for number in range(num_running):
        prompt = [rng.randrange(model.config.vocab_size) for _ in range(context)]
        engine.add_request(prompt, params, f"request-{number}")
    engine.step()
    return engine


def step_times(engine: LLMEngine, steps: int) -> dict[str, Any]:
    """Medians over some decode steps: milliseconds by part, outside the model, and in all."""
    laps = []
    with watch(engine) as stopwatch:
        for _ in range(WARM_UP + steps):
            engine.step()
            laps.append(stopwatch.lap())
    laps = laps[WARM_UP:]
    parts = {part: 1e3 * median(lap.get(part, 0.0) for lap in laps) for part in (*MODEL_PARTS, *OTHER_PARTS)}
    outside = 1e3 * median(map(outside_model, laps))
    whole = 1e3 * median(sum(lap.values()) for lap in laps)
    return {"parts_ms": parts, "outside_ms": outside, "step_ms": whole, "outside_share": outside / whole}


def measure(folder: Path, sizes: Sizes, seed: int) -> dict[str, Any]:
    """The whole study: runner to running requests to context length to times, and how they grow."""
    model, tokenizer = load_model(folder), Tokenizer(folder)
    cases = [("model", *case) for case in sizes.with_model] + [("stand_in", *case) for case in sizes.stand_in]
    results: dict[str, Any] = {"model": {}, "stand_in": {}}
    for kind, num_running, context in tqdm(cases):
        used = model if kind == "model" else narrow(model)
        engine = decoding_engine(used, tokenizer, num_running, context, sizes.steps + WARM_UP + 2, seed)
        if kind == "model":
            engine.runner = ModelRunner(model, engine.kv.storage, BLOCK_SIZE, TorchAttention())
        else:
            engine.runner = StandIn(engine.kv, model.config.vocab_size, num_running)
        results[kind].setdefault(str(num_running), {})[str(context)] = step_times(engine, sizes.steps)
    return {**results, "growth": growth(results["stand_in"])}


def growth(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Exponents of the time outside the model, each between the two largest cases that differ in one thing alone."""
    most, second = sorted((int(number) for number in rows), reverse=True)[:2]
    shortest = min(rows[str(most)].keys() & rows[str(second)].keys(), key=int)
    contexts = sorted(rows[str(most)], key=int)
    by_number = [rows[str(number)][shortest]["outside_ms"] for number in (second, most)]
    by_context = [rows[str(most)][context]["outside_ms"] for context in (contexts[0], contexts[-1])]
    return {
        "exponent_of_requests": log(by_number[1] / by_number[0]) / log(most / second),
        "exponent_of_context": log(by_context[1] / by_context[0]) / log(int(contexts[-1]) / int(contexts[0])),
    }


def settings(sizes: Sizes) -> dict[str, Any]:
    """What is chosen before the run."""
    return {"model": "target", "threads": torch.get_num_threads(), "block_size": BLOCK_SIZE, "steps": sizes.steps}


def main() -> None:
    """Run the study and write its result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scheduler_overhead",
        description="Time per engine step outside the model, and how it grows.",
        epilog="example: python -m benchmarks.scheduler_overhead",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the prompts (default 0)")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's own)")
    parser.add_argument("--quick", action="store_true", help="few requests; prints the result and writes nothing")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    sizes = QUICK if args.quick else Sizes()
    values = measure(shipped_checkpoint(), sizes, args.seed)
    if args.quick:
        print(json.dumps(values, indent=2))
    else:
        print(write_result("scheduler_overhead", args.seed, settings(sizes), values))


if __name__ == "__main__":
    main()
