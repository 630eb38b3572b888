"""The C kernel: right on every shape and within its bounds, the same in the engine, clear where it cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.models import drain, make_engine, tiny_model

from tinyllm.attention.native import MAX_CHUNK, NativeAttention, single_tokens
from tinyllm.engine.llm import LLM
from tinyllm.errors import OptionError
from tinyllm.kernels import native
from tinyllm.kernels.cases import DECODES, PREFILLS, Case
from tinyllm.kernels.guards import Inputs
from tinyllm.kernels.selftest import run_case
from tinyllm.sampling_params import SamplingParams

pytestmark = pytest.mark.needs("g++")  # the C compiler comes with it

#: Heads that do not fill the vector registers, beside the shapes that Triton takes.
NARROW = [replace(DECODES[1], head_dim=head_dim) for head_dim in (1, 7, 20, 80)]
GRID = [replace(case, sliding_window=None) for case in (*DECODES, *PREFILLS, *NARROW)]


def kernel(inputs: Inputs, case: Case) -> None:
    """Decodes alone, or every token of every chunk, as the case asks."""
    longest = 1 if case.kernel == "paged_decode" else max(case.query_lens)
    tokens = single_tokens(inputs.context_lens, inputs.query_start_loc, longest)
    native.paged_decode(
        inputs.q, inputs.k_cache, inputs.v_cache, *tokens, inputs.block_tables, case.block_size, inputs.out
    )


@pytest.fixture
def compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty place for the compiled kernel, and a process that has not loaded it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.library.cache_clear()
    yield tmp_path
    native.library.cache_clear()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", GRID, ids=lambda case: case.name)
def test_it_agrees_with_the_oracle_and_touches_nothing_else(case: Case, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        outcome = run_case(case, kernel, "cpu")
    finally:
        torch.set_num_threads(before)
    assert not outcome.problems, outcome.problems


def test_each_token_of_a_chunk_sees_up_to_itself() -> None:
    rows, sequences, seen = single_tokens(torch.tensor([7, 3, 40]), torch.tensor([0, 3, 4, 44]), max_chunk=3)
    assert rows.tolist() == [0, 1, 2, 3]
    assert sequences.tolist() == [0, 0, 0, 1]
    assert seen.tolist() == [5, 6, 7, 3]


def test_a_nan_in_one_sequence_stays_there() -> None:
    q = torch.randn(2, 2, 32)
    k_cache, v_cache = torch.randn(2, 8, 1, 32)
    k_cache[5] = torch.nan
    tables = torch.tensor([[0], [1]], dtype=torch.int32)
    out = torch.empty(2, 2, 32)
    everything = torch.arange(2), torch.tensor([4, 4], dtype=torch.int32)
    native.paged_decode(q, k_cache, v_cache, torch.arange(2), *everything, tables, 4, out)
    assert out[0].isfinite().all()
    assert out[1].isnan().all()


@pytest.mark.parametrize(
    "options", [{}, {"num_blocks": 14, "max_num_batched_tokens": 8}, {"max_num_batched_tokens": 50}]
)
def test_the_engine_answers_as_with_torch(options: dict[str, int]) -> None:
    answers = []
    for backend in ("torch", "native"):
        engine = make_engine(tiny_model(gqa_ratio=3), attention_backend=backend, **options)
        for i, length in enumerate((1, 19, 6, MAX_CHUNK, MAX_CHUNK + 1)):
            if length + 8 <= engine.max_model_len:
                engine.add_request([(i + p) % 90 for p in range(length)], SamplingParams(max_tokens=8, n=2), str(i))
        answers.append(drain(engine))
    assert answers[0] == answers[1]


def test_the_shipped_model_answers_as_with_torch() -> None:
    prompts = ["The capital of France is", "one, two, three,", "The river " * 30]
    params = SamplingParams(temperature=0, max_tokens=24)
    torch_answers, native_answers = (
        [output.outputs[0].token_ids for output in LLM(attention_backend=name).generate(prompts, params)]
        for name in ("torch", "native")
    )
    assert torch_answers == native_answers


def test_it_is_compiled_once_and_kept(compiled_anew: Path) -> None:
    NativeAttention()
    (kept,) = (compiled_anew / "tinyllm").iterdir()
    native.library.cache_clear()
    written = kept.stat().st_mtime_ns
    NativeAttention()
    assert [kept.stat().st_mtime_ns, kept] == [written, *(compiled_anew / "tinyllm").iterdir()]


def test_without_a_compiler_it_says_what_to_install(compiled_anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(native.NativeUnavailable, match="apt install gcc"):
        make_engine(tiny_model(), attention_backend="native")


def test_a_compiler_that_fails_is_quoted(compiled_anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FLAGS", ("-no-such-flag",))
    with pytest.raises(native.NativeUnavailable, match="no-such-flag"):
        native.library()
    assert not list((compiled_anew / "tinyllm").iterdir())


def test_a_place_that_cannot_be_written_is_named(compiled_anew: Path) -> None:
    (compiled_anew / "tinyllm").write_text("a file")
    with pytest.raises(native.NativeUnavailable, match="XDG_CACHE_HOME"):
        native.library()


@pytest.mark.parametrize(("dtype", "device"), [(torch.bfloat16, "cpu"), (torch.float32, "cuda")])
def test_another_dtype_or_device_is_refused_when_the_engine_is_made(dtype: torch.dtype, device: str) -> None:
    from tinyllm.attention.registry import attention_backend

    with pytest.raises(OptionError, match="float32 on the CPU"):
        attention_backend("native", device, dtype=dtype)


@pytest.mark.parametrize("broken", ["dtype", "layout", "heads"])
def test_tensors_of_another_layout_are_refused(broken: str) -> None:
    q, k_cache, v_cache, out = torch.randn(1, 2, 32), *torch.randn(2, 8, 1, 32), torch.empty(1, 2, 32)
    if broken == "dtype":
        q = q.double()
    elif broken == "layout":
        out = torch.empty(1, 32, 2).transpose(1, 2)
    else:
        q = torch.randn(1, 32, 2).transpose(1, 2)
    zero = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"float32 on CPU|contiguous|side by side"):
        native.paged_decode(
            q, k_cache, v_cache, zero, zero, torch.ones(1, dtype=torch.int32), torch.zeros(1, 1).int(), 4, out
        )
