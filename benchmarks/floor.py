"""The least time that a load could take on this machine: its arithmetic, and the bytes that it must read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn

from tinyllm.kv_cache.sizing import kv_bytes_per_token
from tinyllm.model.moe import Experts
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.traces import TraceRequest

REPEATS = 9


def seconds(call: Callable[[], object], synchronize: Callable[[], object]) -> float:
    """The median time of a call, after one to warm up."""
    times = []
    for _ in range(REPEATS + 1):
        synchronize()
        start = perf_counter()
        call()
        synchronize()
        times.append(perf_counter() - start)
    return median(times[1:])


def machine_rates(device: str, size: int, copy_bytes: int, synchronize: Callable[[], object]) -> dict[str, float]:
    """What the machine does with the threads that torch has now.

    Args:
        size: rows and columns of the float32 matrices that are multiplied.
        copy_bytes: bytes of the copy; more than the caches hold.
    """
    a = torch.randn(size, size, device=device)
    source = torch.zeros(copy_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "matmul_flops_per_second": 2 * size**3 / seconds(lambda: a @ a, synchronize),
        "copy_bytes_per_second": 2 * copy_bytes / seconds(lambda: target.copy_(source), synchronize),
    }


def work(model: Qwen3ForCausalLM, trace: Sequence[TraceRequest], num_steps: int) -> dict[str, int]:
    """What the trace takes in float32 when each token is computed once and each step reads all weights once.

    A token's K and V are written once, and read by each later token of an output.
    """
    config = model.config
    num_computed = sum(request.total_len - 1 for request in trace)  # the last token is never an input
    contexts = [position + 1 for request in trace for position in range(request.total_len - 1)]
    decode_contexts = sum(
        position + 1 for request in trace for position in range(len(request.prompt_token_ids), request.total_len - 1)
    )
    num_outputs = sum(request.output_len for request in trace)
    attention = 4 * config.num_heads * config.head_dim * config.num_layers * sum(contexts)
    return {
        "matmul_flops": 2 * matrix_weights(model) * num_computed + 2 * model.head_weight.numel() * num_outputs,
        "attention_flops": attention,
        "weight_bytes": num_steps * sum(weight.numel() * weight.element_size() for weight in model.parameters()),
        "kv_bytes": kv_bytes_per_token(config, 4) * (num_computed + decode_contexts),
    }


def matrix_weights(model: Qwen3ForCausalLM) -> int:
    """Weights that each token is multiplied with, the head's apart."""
    total = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            total += module.weight.numel()
        elif isinstance(module, Experts):
            stacked = sum(weight.numel() for weight in module.parameters())
            total += stacked * model.config.num_experts_per_tok // model.config.num_experts
    return total


def floor(rates: dict[str, float], needed: dict[str, int], taken: float) -> dict[str, Any]:
    """The two floors in seconds, the higher one, and its share of the time that was taken."""
    compute = (needed["matmul_flops"] + needed["attention_flops"]) / rates["matmul_flops_per_second"]
    memory = (needed["weight_bytes"] + needed["kv_bytes"]) / rates["copy_bytes_per_second"]
    least = max(compute, memory)
    return {
        **rates,
        **needed,
        "compute_seconds": compute,
        "memory_seconds": memory,
        "floor_seconds": least,
        "floor_share": least / taken,
    }
