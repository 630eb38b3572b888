"""The compiled kernels on a GPU: against the oracle on larger shapes too, and the engine on them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from support.models import NumberTokenizer, drain, tiny_model

from tinyllm.attention.base import AttentionBackend
from tinyllm.attention.metadata import AttentionMetadata
from tinyllm.attention.torch import TorchAttention
from tinyllm.config import EngineConfig, SamplingParams
from tinyllm.engine.engine import LLMEngine
from tinyllm.kernels.cases import Case, GroupedCase, device_grid
from tinyllm.kv_cache.storage import PagedKVCache
from tinyllm.parts import resolve
from tinyllm.paths import project_root

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", device_grid(), ids=lambda case: case.name)
def test_a_kernel_agrees_with_the_oracle_and_stays_in_bounds(case: Case | GroupedCase) -> None:
    from tinyllm.kernels.selftest import run_case, triton_kernels

    outcome = run_case(case, triton_kernels()[case.kernel], "cuda")
    assert outcome.problems == ()


def test_the_engine_gives_the_tokens_of_the_torch_backend() -> None:
    from tinyllm.attention.triton import TritonAttention

    def run(backend: AttentionBackend, device: str) -> dict[str, tuple[tuple[int, ...], ...]]:
        config = EngineConfig.from_options(block_size=3, num_blocks=40, max_num_batched_tokens=16)
        model = tiny_model(gqa_ratio=3).to(device)
        engine = LLMEngine(model, NumberTokenizer(), config, resolve(), backend=backend)  # type: ignore[arg-type]
        for i in range(12):
            engine.add_request([i, *range(5 * i)], SamplingParams(max_tokens=10), str(i))
        return drain(engine)

    expected = run(TorchAttention(), "cpu")
    assert run(TritonAttention(), "cuda") == expected
    assert run(TritonAttention(split_size=16), "cuda") == expected


def test_a_decode_step_never_waits_for_the_gpu() -> None:
    from tinyllm.attention.triton import TritonAttention

    cache = PagedKVCache(1, 64, 16, 2, 64, torch.bfloat16, "cuda")
    metadata = AttentionMetadata(
        query_start_loc=torch.arange(5, dtype=torch.int32, device="cuda"),
        context_lens=torch.tensor([1, 17, 200, 64], dtype=torch.int32, device="cuda"),
        block_tables=torch.arange(64, dtype=torch.int32, device="cuda").view(4, 16),
        slot_mapping=torch.tensor([0, 272, 711, 831], device="cuda"),
        block_size=16,
    )
    q = torch.randn(4, 8, 64, dtype=torch.bfloat16, device="cuda")
    k, v = torch.randn(2, 4, 2, 64, dtype=torch.bfloat16, device="cuda")
    for backend in (TritonAttention(), TritonAttention(split_size=32)):
        expected = backend.plan(metadata, cache)(0, q, k, v)  # compiles
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            out = backend.plan(metadata, cache)(0, q, k, v)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.equal(out, expected)


@pytest.mark.timeout(900)
def test_the_self_test_passes_compiled() -> None:
    command = [sys.executable, "-m", "tinyllm.kernels.selftest", "--device", "cuda"]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1500:]
    assert "largest error" in done.stdout
