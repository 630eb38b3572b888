"""How the model is run: the dtype, the device, the attention backend; what cannot be had is refused in one message."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.checkpoints import random_model, small_config, small_sparse_config
from support.models import NumberTokenizer, drain, make_engine, tiny_model
from torch import Tensor

from tinyllm import SamplingParams
from tinyllm.attention import registry
from tinyllm.attention.registry import attention_backend
from tinyllm.attention.torch import TorchAttention
from tinyllm.config import CacheConfig, EngineConfig, ModelConfig
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import ModelRunner
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.errors import OptionError
from tinyllm.model.loader import load_model, resolve_dtype, save_model
from tinyllm.parts import resolve


class Watched(ModelRunner):
    """A runner that keeps the logits of every step."""

    def __init__(self, engine: LLMEngine) -> None:
        runner = engine.runner
        assert isinstance(runner, ModelRunner)
        super().__init__(runner.model, runner.cache, runner.block_size, runner.backend)
        self.logits: list[Tensor] = []

    def execute(self, scheduled: list[ScheduledRequest]) -> Tensor:  # type: ignore[override]
        self.logits.append(super().execute(scheduled))
        return self.logits[-1]


def mixed_logits(folder: Path, dtype: str) -> Tensor:
    """[n, V]: the logits of a run in which prompt chunks and decodes share steps. The tokens are given, not chosen."""
    engine = LLMEngine(load_model(folder, dtype), NumberTokenizer(), EngineConfig(CacheConfig(4, 64), 8), resolve())  # type: ignore[arg-type]
    engine.runner = runner = Watched(engine)
    given = [SamplingParams(max_tokens=6, ignore_eos=True, logit_bias={7: 1e9}) for _ in range(3)]
    for i, params in enumerate(given):
        engine.add_request([*range(11 * i, 11 * i + 1 + 5 * i)], params, str(i))
    assert all(tokens == ((7,) * 6,) for tokens in drain(engine).values())
    steps = engine.step_records
    assert any(step.num_prefill_tokens and step.num_decode_tokens for step in steps)
    assert engine.kv.storage.k.dtype == getattr(torch, dtype)
    return torch.cat(runner.logits)


@pytest.mark.parametrize("make", [small_config, small_sparse_config], ids=["dense", "sparse"])
def test_sixteen_bits_stay_close_to_float32(tmp_path: Path, make: type[ModelConfig]) -> None:
    config = make(vocab_size=131)
    save_model(random_model(config), tmp_path)
    full = mixed_logits(tmp_path, "float32")
    for dtype, bits in (("float16", 10), ("bfloat16", 7)):
        half = mixed_logits(tmp_path, dtype)
        assert half.dtype == torch.float32
        assert half.isfinite().all()
        error = (half - full).norm() / full.norm()
        assert 0 < error < 16 * 2.0**-bits, f"{dtype}: off by {error:.1e}"


@pytest.mark.parametrize(
    ("dtype", "stored", "device", "expected"),
    [
        ("auto", "bfloat16", "cpu", torch.float32),
        ("auto", "bfloat16", "cuda", torch.bfloat16),
        ("auto", "float16", "cuda:1", torch.float16),
        ("auto", "float64", "cpu", torch.float32),
        ("float32", "bfloat16", "cuda", torch.float32),
        ("float16", "bfloat16", "cpu", torch.float16),
        (torch.float64, "bfloat16", "cpu", torch.float64),
    ],
)
def test_auto_is_the_checkpoints_dtype_on_cuda_and_float32_elsewhere(
    dtype: str | torch.dtype, stored: str, device: str, expected: torch.dtype
) -> None:
    assert resolve_dtype(dtype, stored, device) == expected


def test_an_unknown_dtype_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"'int3'; give \"auto\", \"float32\", \"bfloat16\", \"float16\""):
        resolve_dtype("int3", "bfloat16", "cpu")
    with pytest.raises(OptionError, match="stored in float8_e4m3fn"):
        resolve_dtype("auto", "float8_e4m3fn", "cuda")


def test_an_unknown_backend_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(OptionError, match="'flash'"):
        EngineConfig(attention_backend="flash")


def test_cuda_without_a_gpu_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="no NVIDIA GPU"):
        load_model(tmp_path, device="cuda")


@pytest.mark.needs("triton")
def test_the_triton_backend_on_the_cpu_is_refused_at_once() -> None:
    from tinyllm.kernels.runtime import KernelsUnavailable

    with pytest.raises(KernelsUnavailable, match="TRITON_INTERPRET=1"):
        make_engine(tiny_model(), attention_backend="triton")


@pytest.mark.parametrize("name", ["auto", "torch"])
def test_on_the_cpu_it_is_the_torch_backend(name: str) -> None:
    assert type(make_engine(tiny_model(), attention_backend=name).runner.backend) is TorchAttention  # type: ignore[attr-defined]


@pytest.mark.needs("triton")
def test_on_cuda_it_is_triton_where_that_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attention_backend("auto", "cuda").supports_cuda_graphs
    assert type(attention_backend("torch", "cuda")) is TorchAttention
    monkeypatch.setattr(registry, "kernels_compile", lambda: False)
    assert type(attention_backend("auto", "cuda")) is TorchAttention
