"""Tokens per second of our engine and of `transformers`, for the same requests on the same machine.

All requests wait from the start; each has the prompt and the output length that the trace gives it, whatever the
model says. Every way to serve them runs greedily in float32, in one process, on the same threads, several times in
turns; the medians are compared. Padded batches compute more tokens than were asked for; only those are counted.
Our engine attends by its fastest backend on the device, and is measured with the one in plain torch as well.

    python -m benchmarks.throughput             writes benchmarks/results/throughput.json; an hour on two cores
    python -m benchmarks.throughput --profile   and says where our engine's time goes
    python -m benchmarks.throughput --quick     a minute, to see that it runs; prints the result, writes nothing
    python -m benchmarks.throughput --trace alpaca --rounds 5 --device cuda
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.breakdown import profile
from benchmarks.record import write_result
from benchmarks.rivals import Serve, continuous_batching, load_rival, one_by_one, padded
from tinyllm.attention.registry import attention_backend
from tinyllm.config import CacheConfig, EngineConfig
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.report import LoadReport, summarize
from tinyllm.model.loader import load_model
from tinyllm.model.tokenizer import Tokenizer
from tinyllm.parts import resolve
from tinyllm.paths import shipped_checkpoint
from tinyllm.traces import PUBLISHED_MEANS, TraceRequest, make_trace

BLOCK_SIZE = 16
#: The attention backend that serves fastest on a device.
FASTEST = {"cpu": "native", "cuda": "auto"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured.

    Attributes:
        trace: one of `PUBLISHED_MEANS`.
        max_len: longest prompt plus output, in tokens.
        batch_sizes: of the padded batches.
        rounds: how often each way runs.
        matmul_size, copy_bytes: of the measurements of the machine.
    """

    trace: str = "sharegpt"
    num_requests: int = 64
    max_len: int = 1024
    batch_sizes: tuple[int, ...] = (4, 8, 16, 32, 64)
    rounds: int = 3
    matmul_size: int = 2048
    copy_bytes: int = 2**28


QUICK = Sizes("alpaca", num_requests=6, max_len=48, batch_sizes=(4,), rounds=1, matmul_size=256, copy_bytes=2**22)


class Ours:
    """Our engine; a new one for each run, so that no run finds its prompts in the prefix cache.

    Attributes:
        reports: one for each run.
    """

    def __init__(self, folder: Path, config: EngineConfig, device: str, attention: str | None = None) -> None:
        """`attention` is a backend's name; None takes the fastest."""
        self.model = load_model(folder, device=device)
        self.tokenizer = Tokenizer(folder)
        self.config = config
        self.backend = attention_backend(attention or FASTEST[device], device)
        self.reports: list[LoadReport] = []

    def engine(self, trace: Sequence[TraceRequest]) -> LLMEngine:
        """An engine with all requests in its queue."""
        engine = LLMEngine(self.model, self.tokenizer, self.config, resolve(), self.backend)
        for number, request in enumerate(trace):
            engine.add_request(request.prompt_token_ids, request.params, f"request-{number}")
        return engine

    def __call__(self, trace: Sequence[TraceRequest]) -> list[list[int]]:
        """Serve the trace; a `Serve`."""
        engine = self.engine(trace)
        outputs = {}
        with engine.step_log.keep_all() as records:
            while engine.has_unfinished:
                outputs.update({output.request_id: output.outputs[0] for output in engine.step()})
        metrics = [output.metrics for output in outputs.values()]
        self.reports.append(summarize(metrics, records, self.config.cache.num_blocks))
        return [list(outputs[f"request-{number}"].token_ids) for number in range(len(trace))]


def engine_config(trace: Sequence[TraceRequest]) -> EngineConfig:
    """A pool in which all requests find room to their end, so that nobody is preempted."""
    blocks = sum(-(-request.total_len // BLOCK_SIZE) for request in trace)
    return EngineConfig(CacheConfig(BLOCK_SIZE, num_blocks=blocks, enable_prefix_caching=False))


def ways(ours: Ours, folder: Path, device: str, batch_sizes: Sequence[int]) -> tuple[dict[str, Serve], dict[str, str]]:
    """The ways to serve a trace, and why some are missing."""
    found: dict[str, Serve] = {"tinyllm": ours, "tinyllm_torch": Ours(folder, ours.config, device, "torch")}
    rival = load_rival(folder, device)
    names = ["one_by_one", *[f"padded_{size}" for size in batch_sizes], "continuous_batching"]
    if isinstance(rival, str):
        return found, dict.fromkeys(names, rival)
    calls = [partial(one_by_one, rival), *[partial(padded, rival, batch_size=size) for size in batch_sizes]]
    return found | dict(zip(names, [*calls, partial(continuous_batching, rival, config=ours.config)], strict=True)), {}


def run_in_turns(
    serves: Mapping[str, Serve], trace: Sequence[TraceRequest], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[list[int]]], dict[str, str]]:
    """Run every way once a round, after a short run to warm up.

    Returns:
        Seconds and outputs by way, and why a way failed; one that failed is not tried again.
    """
    seconds: dict[str, list[float]] = {name: [] for name in serves}
    outputs: dict[str, list[list[int]]] = {}
    failed: dict[str, str] = {}
    warm_up = [replace(request, output_len=min(request.output_len, 4)) for request in trace[:4]]
    with tqdm(total=(rounds + 1) * len(serves)) as bar:
        for number in range(rounds + 1):
            for name, serve in serves.items():
                bar.set_description(f"{'warm-up' if number == 0 else f'round {number}'}, {name}")
                if name not in failed:
                    try:
                        taken, outputs[name] = timed(serve, trace if number else warm_up)
                    except Exception as error:  # another library may refuse this machine in any way
                        if name == "tinyllm":
                            raise
                        failed[name] = f"{type(error).__name__}: {error}"
                    else:
                        seconds[name] += [taken] if number else []
                bar.update()
    return {name: times for name, times in seconds.items() if name not in failed}, outputs, failed


def timed(serve: Serve, trace: Sequence[TraceRequest]) -> tuple[float, list[list[int]]]:
    """Seconds and outputs of one run, whose outputs have the length that was asked for."""
    start = perf_counter()
    outputs = serve(trace)
    taken = perf_counter() - start
    wrong = [i for i, request in enumerate(trace) if len(outputs[i]) != request.output_len]
    if wrong:
        raise RuntimeError(f"{len(wrong)} outputs are not as long as the trace asks, the first of request {wrong[0]}")
    return taken, outputs


def ratios(rates: Mapping[str, float]) -> dict[str, Any]:
    """Our tokens per second over those of each kind of rival, and of our own engine with attention in torch."""
    found: dict[str, Any] = {
        f"over_{name}": rates["tinyllm"] / rates[name]
        for name in ("tinyllm_torch", "one_by_one", "continuous_batching")
        if name in rates
    }
    batches = [name for name in rates if name.startswith("padded")]
    if batches:
        fastest = max(batches, key=lambda name: rates[name])
        found |= {"fastest_padded": fastest, "over_fastest_padded": rates["tinyllm"] / rates[fastest]}
    return found


def measure(folder: Path, sizes: Sizes, seed: int, device: str, with_profile: bool) -> dict[str, Any]:
    """The whole study."""
    trace = make_trace(sizes.trace, sizes.num_requests, sizes.max_len, seed=seed)
    ours = Ours(folder, engine_config(trace), device)
    serves, missing = ways(ours, folder, device, sizes.batch_sizes)
    seconds, outputs, failed = run_in_turns(serves, trace, sizes.rounds)
    num_tokens = sum(request.output_len for request in trace)
    rates = {name: num_tokens / median(times) for name, times in seconds.items()}
    reports = sorted(ours.reports[1:], key=lambda report: report.duration)
    report = reports[len(reports) // 2]  # of the median run; the first run was the warm-up
    values = {
        "num_prompt_tokens": sum(len(request.prompt_token_ids) for request in trace),
        "num_output_tokens": num_tokens,
        "longest_output": max(request.output_len for request in trace),
        "tokens_per_second": rates,
        "seconds": seconds,
        "ratios": ratios(rates),
        "latency": {name: asdict(getattr(report, name)) for name in ("ttft", "tpot", "itl", "latency")},
        "num_steps": report.num_steps,
        # Greedy outputs can part where two tokens are all but equally likely: batches round differently.
        "outputs_as_ours": {
            name: sum(a == b for a, b in zip(outputs["tinyllm"], outputs[name], strict=True)) for name in rates
        },
        "not_measured": missing | failed,
    }
    if with_profile:
        values["profile"] = profile(ours, trace, report.num_steps, median(seconds["tinyllm"]), sizes, device)
    return values


def settings(sizes: Sizes, model: str, device: str) -> dict[str, Any]:
    """What is chosen before the run."""
    return {
        "model": model,
        "device": device,
        "dtype": "float32",
        "threads": torch.get_num_threads(),
        "trace": sizes.trace,
        "num_requests": sizes.num_requests,
        "max_len": sizes.max_len,
        "rounds": sizes.rounds,
    }


def main() -> None:
    """Run the study and write its result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description="Tokens per second of our engine and of transformers, for the same requests.",
        epilog="example: python -m benchmarks.throughput --profile",
    )
    add = parser.add_argument
    add("--seed", type=int, default=0, help="seed of the trace (default 0)")
    add("--trace", choices=PUBLISHED_MEANS, default="sharegpt", help="whose lengths the requests have")
    add("--requests", type=int, default=64, help="how many (default 64)")
    add("--max-len", type=int, default=1024, help="longest prompt plus output in tokens (default 1024)")
    add("--rounds", type=int, default=3, help="how often each way runs (default 3)")
    add("--threads", type=int, help="torch threads of all ways (default: torch's own)")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--model", default="target", help="a checkpoint that ships (default target)")
    add("--profile", action="store_true", help="say where our engine's time goes, and what the least would be")
    add("--quick", action="store_true", help="few short requests; prints the result and writes nothing")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    sizes = QUICK if args.quick else Sizes(args.trace, args.requests, args.max_len, rounds=args.rounds)
    values = measure(shipped_checkpoint(args.model), sizes, args.seed, args.device, args.profile)
    if args.quick:
        print(json.dumps(values, indent=2))
    else:
        print(write_result("throughput", args.seed, settings(sizes, args.model, args.device), values))


if __name__ == "__main__":
    main()
