"""The benchmark's study runs, on tiny sizes in the interpreter; only the times are made up."""

from __future__ import annotations

import json

import pytest
from interpreted import run_interpreted
from support.commands import run_without_gpu

STUDY = """
import json
import torch
from benchmarks.kernels import Sizes, measure
torch.set_num_threads(1)
def timer(call):
    call()
    return 1.0
sizes = Sizes(4, 2, 32, (2, 20, 40), ((1, 300),), ((9, 9), (5, 40)), 4, 1000)
values = measure(sizes, "cpu", 0, timer)
print(json.dumps(values))
"""


@pytest.mark.needs("triton")
@pytest.mark.timeout(600)
def test_the_study_runs_and_counts_what_it_says() -> None:
    done = run_interpreted("-c", STUDY)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout.splitlines()[-1])
    assert values["copy_bytes_per_second"] == 2 * 1000 * 1e3
    long = values["decode_long_context"]["1 x 300"]
    assert long["kv_bytes"] == 2 * 300 * 2 * 32 * 2
    assert long["floor_milliseconds"] == pytest.approx(300 * 256 / 2000)
    assert set(long["kernels"]) >= {"paged_decode", "paged_decode_split 256"}
    whole, chunk = values["prefill"].values()
    assert whole["operations"] == 4 * 45 * 4 * 32
    assert whole["speed_over_best_peer"] == 1.0
    assert chunk["operations"] == 4 * (36 + 37 + 38 + 39 + 40) * 4 * 32
    assert "whole sequences only" in chunk["not_measured"]["scaled_dot_product_attention"]


def test_without_a_gpu_it_says_so() -> None:
    done = run_without_gpu("benchmarks.kernels")
    assert done.returncode == 1
    assert "needs an NVIDIA GPU" in done.stderr
