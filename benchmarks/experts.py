"""A sparse layer computed in several ways, ours and those of transformers: same weights, same tokens, same run.

Three questions. Which way is fastest for 1 to 4,096 tokens at the shape of the shipped model? What does the layer cost
when it has more experts of which each token uses as many: it should cost the same, where a dense layer of as many
weights costs more and more? And, on CUDA, what share of the rate of a dense product has our grouped one, at the shape
of Qwen3-30B-A3B and for as many operations, beside torch's `grouped_mm`?

A layer is router and experts. All ways are checked to compute the same before they are timed. The candidates take
turns, and the fastest round counts: on a machine with other work, ratios within a run are what can be trusted.

    python -m benchmarks.experts                    writes benchmarks/results/experts.json; minutes on two cores
    python -m benchmarks.experts --max-tokens 512   fewer tokens
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import torch

from benchmarks.breakdown import synchronizer
from benchmarks.grouped_product import measure_grouped_product
from benchmarks.record import write_result
from benchmarks.sparse_layers import (
    QWEN3_30B_A3B,
    SHIPPED,
    TRANSFORMERS_MISSING,
    Shape,
    check_agreement,
    our_ways,
    random_layer,
    their_ways,
)
from tinyllm.model.layers import MLP
from tinyllm.model.moe import SparseMLP


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured.

    Attributes:
        shape: of the layer; its experts are also multiplied.
        tokens: T, batches for the first question.
        experts: E at the same K, for the second.
        experts_tokens: T for the second; the dense layer is measured at the last.
        grouped: the shape of the grouped product, and its numbers of tokens.
        seconds: how long the rounds of one comparison may take, about.
        min_rounds: rounds there are at least.
    """

    shape: Shape = SHIPPED
    tokens: tuple[int, ...] = (1, 8, 64, 512, 4096)
    experts: tuple[int, ...] = (8, 16, 32, 64, 128)
    experts_tokens: tuple[int, ...] = (512, 4096)
    grouped: Shape = QWEN3_30B_A3B
    grouped_tokens: tuple[int, ...] = (1, 16, 64, 512, 4096, 16_384)
    seconds: float = 6.0
    min_rounds: int = 3


def fastest(calls: Mapping[str, Callable[[], object]], sizes: Sizes, wait: Callable[[], object]) -> dict[str, float]:
    """The milliseconds of each call's fastest round; in a round every call has a turn."""
    best = dict.fromkeys(calls, float("inf"))
    end, rounds = perf_counter() + sizes.seconds, 0
    while rounds <= sizes.min_rounds or perf_counter() < end:
        for name, call in calls.items():
            wait()
            start = perf_counter()
            call()
            wait()
            if rounds:  # the first warms up
                best[name] = min(best[name], 1e3 * (perf_counter() - start))
        rounds += 1
    return best


def measure_layer(layer: SparseMLP, shape: Shape, num_tokens: int, sizes: Sizes, seed: int) -> dict[str, float]:
    """Milliseconds of one layer for T tokens in every way."""
    weight = layer.gate.weight
    x = torch.randn(num_tokens, shape.hidden, generator=torch.Generator().manual_seed(seed)).to(weight)
    device = weight.device.type
    ways = our_ways(layer, device) | their_ways(layer, shape)
    check_agreement({name: call(x) for name, call in ways.items()})
    return fastest({name: partial(call, x) for name, call in ways.items()}, sizes, synchronizer(device))


def measure_dense(shape: Shape, num_tokens: int, sizes: Sizes, device: str, dtype: torch.dtype) -> float:
    """Milliseconds of a dense layer with as many weights as all experts together."""
    mlp = MLP(shape.hidden, shape.num_experts * shape.inner).to(device, dtype)
    x = torch.randn(num_tokens, shape.hidden, device=device, dtype=dtype)
    few = replace(sizes, seconds=sizes.seconds / 4)  # a slow call that nothing else takes turns with
    return fastest({"dense": partial(mlp, x)}, few, synchronizer(device))["dense"]


def measure_experts(sizes: Sizes, device: str, dtype: torch.dtype, seed: int) -> dict[str, Any]:
    """Every number of experts at the same K, and how much slower the last is than the first."""
    results: dict[str, Any] = {}
    for num_experts in sizes.experts:
        shape = Shape(sizes.shape.hidden, sizes.shape.inner, num_experts, sizes.shape.top_k)
        layer = random_layer(shape, device, dtype, seed)
        row: dict[str, Any] = {}
        for num_tokens in sizes.experts_tokens:
            times = measure_layer(layer, shape, num_tokens, sizes, seed)
            if num_tokens == sizes.experts_tokens[-1]:
                times["dense of as many weights"] = measure_dense(shape, num_tokens, sizes, device, dtype)
            row[str(num_tokens)] = {"milliseconds": times, **ratios(times)}
            print(f"E = {num_experts}, T = {num_tokens}:", in_words(times))
        results[str(num_experts)] = row
    return results


def measure_tokens(sizes: Sizes, device: str, dtype: torch.dtype, seed: int) -> dict[str, Any]:
    """Every number of tokens at the shipped shape."""
    layer = random_layer(sizes.shape, device, dtype, seed)
    results = {}
    for num_tokens in sizes.tokens:
        times = measure_layer(layer, sizes.shape, num_tokens, sizes, seed)
        results[str(num_tokens)] = {"milliseconds": times, **ratios(times)}
        print(f"T = {num_tokens}:", in_words(times))
    return results


def ratios(times: Mapping[str, float]) -> dict[str, float]:
    """How many times as fast as some others the way is that the engine takes, and "native" where it compiles."""
    ours = {"": times.get("triton", times["torch"])} | ({"native_": times["native"]} if "native" in times else {})
    others = [name for name in ("loop", "transformers eager", "transformers grouped_mm") if name in times]
    return {
        f"{prefix}speed_over_{name.replace(' ', '_')}": times[name] / time
        for prefix, time in ours.items()
        for name in others
    }


def in_words(times: Mapping[str, float]) -> str:
    """Times for people."""
    return ", ".join(f"{name} {time:.3g} ms" for name, time in times.items())


@torch.inference_mode()
def measure(sizes: Sizes, device: str, seed: int) -> dict[str, Any]:
    """The whole study."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    values: dict[str, Any] = {"not_measured": {}}
    if find_spec("transformers") is None:
        values["not_measured"]["transformers"] = TRANSFORMERS_MISSING
    values["by_tokens"] = measure_tokens(sizes, device, dtype, seed)
    values["by_experts"] = measure_experts(sizes, device, dtype, seed)
    if device == "cuda":
        values["grouped_product"] = measure_grouped_product(sizes.grouped, sizes.grouped_tokens, seed)
    else:
        values["not_measured"]["grouped_product"] = "it is a kernel for NVIDIA GPUs; there is none here"
    return values


def up_to(sizes: Sizes, max_tokens: int) -> Sizes:
    """The same without the batches that are larger."""

    def kept(tokens: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(number for number in tokens if number <= max_tokens)

    return replace(
        sizes,
        tokens=kept(sizes.tokens),
        experts_tokens=kept(sizes.experts_tokens),
        grouped_tokens=kept(sizes.grouped_tokens),
    )


def main() -> None:
    """Run the study and write its result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experts",
        description="A sparse layer in several ways, ours and those of transformers.",
        epilog="example: python -m benchmarks.experts --max-tokens 512",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and tokens (default 0)")
    parser.add_argument("--max-tokens", type=int, default=16_384, help="leave larger batches out (default: none)")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes, load = up_to(Sizes(), args.max_tokens), os.getloadavg()[0]
    values = measure(sizes, device, args.seed)
    settings = {
        "sizes": asdict(sizes),
        "device": device,
        "threads": torch.get_num_threads(),
        "load_before": load,
    }
    print(write_result("experts", args.seed, settings, values))


if __name__ == "__main__":
    main()
