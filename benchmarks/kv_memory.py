"""How many requests one KV pool holds, and where its slots go: contiguous reservation against paging.

The real engine runs two traces of 200 requests (lengths with the means of ShareGPT and Alpaca) in one pool. Block
size 2,048, the longest request allowed, is contiguous reservation; 8, 16 and 32 are paging. Then it runs four
samples a prompt, and requests that share a system prompt, and counts the blocks and tokens that sharing saves.
Every output has the length that its trace gives it, so schedule, allocation and sharing do not depend on what the
model says, and `--no-model` gives the same values in a minute. The committed result comes from the full run.

    python -m benchmarks.kv_memory              writes benchmarks/results/kv_memory.json, in half an hour or more
    python -m benchmarks.kv_memory --no-model   the same without running the model
    python -m benchmarks.kv_memory --seed 1     another draw of the traces
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.record import write_result
from tinyllm.config import CacheConfig, EngineConfig
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.metrics import StepRecord
from tinyllm.engine.model_runner import DryRunner
from tinyllm.model.loader import load_model
from tinyllm.model.tokenizer import Tokenizer
from tinyllm.parts import resolve
from tinyllm.paths import shipped_checkpoint
from tinyllm.traces import PUBLISHED_MEANS, TraceRequest, make_trace

MAX_MODEL_LEN = 2048
POOL_SLOTS = 8 * MAX_MODEL_LEN
BLOCK_SIZES = (8, 16, 32)
NUM_REQUESTS = 200
NUM_SAMPLES = 4
SYSTEM_PROMPT_LEN = 256
STRIDE = 25  # every 25th step is written down for the picture


def make_engine(block_size: int, with_model: bool, prefix_caching: bool = False) -> LLMEngine:
    """An engine of the shipped target over the pool of this study."""
    model = load_model(shipped_checkpoint())
    config = EngineConfig(
        CacheConfig(block_size, POOL_SLOTS // block_size, prefix_caching),
        max_num_batched_tokens=MAX_MODEL_LEN,
        max_num_seqs=NUM_REQUESTS,
        max_model_len=MAX_MODEL_LEN,
    )
    runner = None if with_model else DryRunner(model.config.vocab_size)
    return LLMEngine(model, Tokenizer(shipped_checkpoint()), config, resolve(), runner=runner)


def run(engine: LLMEngine, trace: Sequence[TraceRequest], num_samples: int = 1, title: str = "") -> list[StepRecord]:
    """Serve the whole trace, all requests waiting from the start, and return the engine's records."""
    for number, request in enumerate(trace):
        sampling = replace(request.params, n=num_samples, temperature=float(num_samples > 1), seed=number)
        engine.add_request(request.prompt_token_ids, sampling, f"request-{number}")
    with tqdm(total=len(trace), desc=title) as bar, engine.step_log.keep_all() as records:
        while engine.has_unfinished:
            bar.update(len(engine.step()))
    return records


def occupancy(records: Sequence[StepRecord]) -> dict[str, Any]:
    """Requests in the pool and its waste.

    `mean_running` is taken over the steps in which requests wait, so that the pool is as full as it gets.
    `waste_percent` is the share of the slots handed out that hold no token, over all steps.
    """
    loaded = [record.num_running for record in records if record.num_waiting] or [records[0].num_running]
    cached = sum(record.num_cached_tokens for record in records)
    wasted = sum(record.num_wasted_slots for record in records)
    return {
        "peak_running": max(record.num_running for record in records),
        "mean_running": sum(loaded) / len(loaded),
        "waste_percent": 100 * wasted / (cached + wasted),
        "steps": len(records),
        "preemptions": sum(record.num_preempted for record in records),
    }


def fit_and_waste(seed: int, with_model: bool) -> dict[str, Any]:
    """Both traces under contiguous reservation and under paging."""
    results: dict[str, Any] = {}
    for name in PUBLISHED_MEANS:
        trace = make_trace(name, NUM_REQUESTS, MAX_MODEL_LEN, seed=seed)
        contiguous = run(make_engine(MAX_MODEL_LEN, with_model), trace, title=f"{name}, contiguous")
        rows = {"contiguous": occupancy(contiguous)}
        running = {"contiguous": [record.num_running for record in contiguous]}
        for size in BLOCK_SIZES:
            records = run(make_engine(size, with_model), trace, title=f"{name}, blocks of {size}")
            rows[f"block_{size}"] = occupancy(records)
            running[f"block_{size}"] = [record.num_running for record in records]
        for size in BLOCK_SIZES:
            row = rows[f"block_{size}"]
            row["times_contiguous"] = row["mean_running"] / rows["contiguous"]["mean_running"]
        mean_prompt = sum(len(request.prompt_token_ids) for request in trace) / len(trace)
        mean_output = sum(request.output_len for request in trace) / len(trace)
        results[name] = {
            "mean_prompt_len": mean_prompt,
            "mean_output_len": mean_output,
            **rows,
            "running_by_step": {
                "stride": STRIDE,
                **{policy: running[policy][::STRIDE] for policy in ("contiguous", "block_16")},
            },
        }
    return results


def parallel_sampling(seed: int, with_model: bool) -> dict[str, Any]:
    """Four samples of each prompt, which share the blocks of the prompt (ShareGPT and Alpaca lengths)."""
    results: dict[str, Any] = {}
    for name in PUBLISHED_MEANS:
        trace = make_trace(name, NUM_REQUESTS // NUM_SAMPLES, MAX_MODEL_LEN, seed=seed)
        records = run(
            make_engine(16, with_model, True), trace, NUM_SAMPLES, title=f"{name}, {NUM_SAMPLES} samples a prompt"
        )
        results[name] = {**occupancy(records), **saved_blocks(records)}
    return results


def system_prompt(seed: int, with_model: bool) -> dict[str, Any]:
    """Requests that begin with one system prompt, with and without the prefix cache."""
    trace = make_trace("sharegpt", NUM_REQUESTS, MAX_MODEL_LEN - SYSTEM_PROMPT_LEN, seed=seed)
    shared = tuple(range(SYSTEM_PROMPT_LEN))
    trace = [replace(request, prompt_token_ids=shared + request.prompt_token_ids) for request in trace]
    rows: dict[str, Any] = {}
    for name, caching in (("without", False), ("with", True)):
        records = run(make_engine(16, with_model, caching), trace, title=f"system prompt, {name} prefix cache")
        rows[name] = {
            **occupancy(records),
            **saved_blocks(records),
            "prompt_tokens_computed": sum(record.num_prefill_tokens for record in records),
        }
    return rows


def saved_blocks(records: Sequence[StepRecord]) -> dict[str, Any]:
    """Blocks held, and blocks that would be held if none were shared, at the fullest step and over all steps."""
    fullest = max(records, key=lambda record: record.num_block_references)
    held = sum(record.num_table_blocks for record in records)
    references = sum(record.num_block_references for record in records)
    return {
        "blocks_saved_percent": 100 * (1 - held / references),
        "fullest_step": {"blocks_held": fullest.num_table_blocks, "without_sharing": fullest.num_block_references},
    }


def settings() -> dict[str, Any]:
    """What is chosen before the run."""
    return {
        "num_requests": NUM_REQUESTS,
        "max_model_len": MAX_MODEL_LEN,
        "pool_slots": POOL_SLOTS,
        "num_samples": NUM_SAMPLES,
        "system_prompt_len": SYSTEM_PROMPT_LEN,
    }


def measure(seed: int, with_model: bool = True) -> dict[str, Any]:
    """Run the whole study. The same seed gives the same values on any machine, with or without the model."""
    return {
        "traces": fit_and_waste(seed, with_model),
        "parallel_sampling": parallel_sampling(seed, with_model),
        "system_prompt": system_prompt(seed, with_model),
    }


def main() -> None:
    """Run the study and write its result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kv_memory",
        description="Requests that fit in one KV pool, waste, and what sharing saves.",
        epilog="example: python -m benchmarks.kv_memory --seed 0",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the traces (default 0)")
    parser.add_argument("--no-model", action="store_true", help="leave the model out; the values are the same")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(write_result("kv_memory", args.seed, settings(), measure(args.seed, with_model=not args.no_model)))


if __name__ == "__main__":
    main()
