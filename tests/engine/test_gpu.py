"""The same engine on a GPU: its tokens equal those of the CPU in float32, on each backend, eager or as CUDA graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from support.checkpoints import random_model, small_sparse_config
from support.models import NumberTokenizer, drain, make_engine, tiny_model

from tinyllm.attention.triton import TritonAttention
from tinyllm.config import EngineConfig, SamplingParams
from tinyllm.engine.cuda_graphs import DecodeGraphs
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import ModelRunner
from tinyllm.engine.request import Request
from tinyllm.engine.speculation import Proposer
from tinyllm.parts import resolve

pytestmark = pytest.mark.gpu

Tokens = dict[str, tuple[tuple[int, ...], ...]]


def serve(engine: LLMEngine, lengths: Sequence[int], first: int = 0) -> Tokens:
    """Greedy continuations of different lengths."""
    for i, length in enumerate(lengths, first):
        params = SamplingParams(max_tokens=length, ignore_eos=True)
        engine.add_request([i % 97, *range(2 * (i % 20) + 1)], params, str(i))
    return drain(engine)


def runner_of(engine: LLMEngine) -> ModelRunner:
    assert isinstance(engine.runner, ModelRunner)
    return engine.runner


def graphs_of(engine: LLMEngine) -> DecodeGraphs:
    graphs = runner_of(engine).graphs
    assert graphs is not None, "the engine was to use CUDA graphs"
    return graphs


@pytest.mark.parametrize(
    "options",
    [{}, {"enforce_eager": True}, {"attention_backend": "torch"}],
    ids=["graphs", "triton, eager", "torch"],
)
def test_tokens_on_cuda_equal_those_on_the_cpu(options: dict[str, Any]) -> None:
    def run(device: str) -> Tokens:
        engine = make_engine(tiny_model().to(device), num_blocks=24, **options)
        for i in range(12):
            engine.add_request([i, *range(2 * i + 1)], SamplingParams(max_tokens=10), str(i))
        engine.add_request([1, 2, 3], SamplingParams(max_tokens=10, n=3, temperature=0.8, top_k=9, seed=1), "sampled")
        return drain(engine)

    assert run("cuda") == run("cpu")


@pytest.mark.parametrize("batch", range(1, 10))
def test_graphs_give_the_tokens_of_eager_steps(batch: int) -> None:
    """Sequences end one after another, so the batch shrinks through all sizes; then it all comes again, replayed."""
    model = tiny_model(gqa_ratio=3).to("cuda")
    eager = make_engine(model, enforce_eager=True)
    replaying = make_engine(model)
    lengths = [4 + 3 * i for i in range(batch)]
    for first in (0, 20):
        assert serve(replaying, lengths, first) == serve(eager, lengths, first)
    assert runner_of(eager).graphs is None
    expected = [size for size in (1, 2, 4, 8, 16) if size < 2 * batch]
    assert graphs_of(replaying).recorded_sizes == expected


def test_graphs_with_a_full_pool_preemption_and_prompts_in_chunks() -> None:
    options: dict[str, Any] = {"block_size": 3, "num_blocks": 30, "max_num_batched_tokens": 16}
    engine = make_engine(tiny_model().to("cuda"), **options)
    assert serve(engine, [9] * 12) == serve(make_engine(tiny_model(), **options), [9] * 12)
    assert graphs_of(engine).recorded_sizes
    assert sum(step.num_preempted for step in engine.step_records) > 0


def test_verification_runs_in_graphs_too() -> None:
    """Drafts that are right, always three: a graph for four tokens a sequence beside that for one."""

    class SaysFive(Proposer):
        max_draft_tokens = 3

        def propose(self, requests: Sequence[Request]) -> Sequence[list[int]]:
            return [[5, 5, 5] for _ in requests]

    model = tiny_model(gqa_ratio=3).to("cuda")
    config = EngineConfig.from_options(block_size=3, num_blocks=90)
    engine = LLMEngine(model, NumberTokenizer(), config, resolve(), proposer=SaysFive())  # type: ignore[arg-type]
    plain = make_engine(model, block_size=3, num_blocks=90)
    for each in (engine, plain):
        for i in range(5):
            bias = {5: 1e9} if i < 3 else None
            params = SamplingParams(max_tokens=13 + i, ignore_eos=True, logit_bias=bias)
            each.add_request([i, *range(2 * i)], params, str(i))
    assert drain(engine) == drain(plain)
    assert {query_len for _, query_len in graphs_of(engine).recorded} >= {1, 4}
    assert len(engine.step_records) < len(plain.step_records)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits_on_every_backend(dtype: torch.dtype) -> None:
    """The logits of the same decode step, to rounding: greedy tokens of a random model may part at near-ties."""
    model = tiny_model().to("cuda", dtype)
    logits = {}
    for name, options in (
        ("torch", {"attention_backend": "torch"}),
        ("eager", {"enforce_eager": True}),
        ("graphs", {}),
    ):
        engine = make_engine(model, **options)
        for i in range(5):
            engine.add_request(list(range(i, 3 * i + 9)), SamplingParams(max_tokens=3, logit_bias={7: 1e9}), str(i))
        engine.step()
        scheduled = engine.scheduler.schedule().scheduled
        logits[name] = engine.runner.execute(scheduled)
        assert logits[name].isfinite().all()
    assert logits["graphs"].shape == (5, 97)
    scale = logits["torch"].norm()
    for name in ("eager", "graphs"):
        assert (logits[name] - logits["torch"]).norm() / scale < 16 * torch.finfo(dtype).eps


def test_a_replay_never_waits_for_the_gpu() -> None:
    engine = make_engine(tiny_model().to("cuda"))
    for i in range(3):
        engine.add_request([i, 1, 2], SamplingParams(max_tokens=20, ignore_eos=True), str(i))
    for _ in range(3):
        engine.step()
    graphs = graphs_of(engine)
    assert graphs.recorded_sizes == [4]
    replay = graphs.recorded[4, 1]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        replay()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_experts_run_eagerly() -> None:
    config = small_sparse_config(vocab_size=97, head_dim=16, eos_token_ids=())
    engine = make_engine(random_model(config).to("cuda"))
    assert isinstance(runner_of(engine).backend, TritonAttention)
    assert runner_of(engine).graphs is None
    assert serve(engine, [5, 6]) == serve(make_engine(random_model(config)), [5, 6])
