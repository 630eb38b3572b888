"""The floor counts the arithmetic and the bytes of a load."""

from __future__ import annotations

import pytest
from support.checkpoints import random_model, small_config, small_sparse_config

from benchmarks.floor import floor, matrix_weights, work
from tinyllm.traces import TraceRequest


def test_work_of_one_request() -> None:
    config = small_config()
    model = random_model(config)
    needed = work(model, [TraceRequest((1, 2, 3), 2)], num_steps=2)
    attention = config.hidden_size * 8 * 12 + 4 * 12 * config.hidden_size  # q, k, v, then the output
    per_token = config.num_layers * (attention + 3 * config.hidden_size * config.intermediate_size)
    assert matrix_weights(model) == per_token
    # The prompt and the first output token are computed, the second is not; both outputs need the head.
    assert needed["matmul_flops"] == 2 * 4 * per_token + 2 * 2 * config.vocab_size * config.hidden_size
    assert needed["attention_flops"] == 4 * 4 * 12 * config.num_layers * (1 + 2 + 3 + 4)
    kv_bytes = 2 * 2 * 12 * 4 * config.num_layers
    assert needed["kv_bytes"] == kv_bytes * (4 + 4)  # four are written; the one decode reads four
    assert needed["weight_bytes"] == 2 * 4 * sum(weight.numel() for weight in model.parameters())


def test_a_token_uses_some_of_the_experts() -> None:
    config = small_sparse_config()
    model = random_model(config)
    attention = config.hidden_size * 8 * 12 + 4 * 12 * config.hidden_size
    router = config.hidden_size * config.num_experts
    experts = config.num_experts_per_tok * 3 * config.hidden_size * config.moe_intermediate_size
    assert matrix_weights(model) == config.num_layers * (attention + router + experts)


def test_the_floor_is_the_higher_of_two() -> None:
    rates = {"matmul_flops_per_second": 10.0, "copy_bytes_per_second": 2.0}
    needed = {"matmul_flops": 15, "attention_flops": 5, "weight_bytes": 8, "kv_bytes": 4}
    found = floor(rates, needed, taken=60.0)
    assert (found["compute_seconds"], found["memory_seconds"], found["floor_seconds"]) == (2, 6, 6)
    assert found["floor_share"] == pytest.approx(0.1)
