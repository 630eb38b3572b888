"""What plugs into the engine from outside: proposers and verifiers of draft tokens, and what runs the experts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from support.checkpoints import random_model, small_sparse_config
from support.models import VOCAB, NumberTokenizer, assert_no_block_lost, dense_greedy, tiny_model
from support.recording import CapturableAttention, record
from support.requests import make_request
from torch import Tensor

from tinyllm.config import EngineConfig
from tinyllm.engine.cuda_graphs import DecodeGraphs
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.metrics import StepRecord
from tinyllm.engine.model_runner import ModelRunner
from tinyllm.engine.request import CompletionOutput, FinishReason, OutputDelta, Request
from tinyllm.engine.sampler import sample
from tinyllm.engine.speculation import ExactVerifier, Proposer
from tinyllm.experts.routing import topk_router
from tinyllm.model.layers import swiglu
from tinyllm.model.moe import SparseMLP
from tinyllm.model.qwen3 import Qwen3ForCausalLM
from tinyllm.parts import resolve
from tinyllm.sampling_params import SamplingParams

MODEL = tiny_model()


class RepeatsTheLast(Proposer):
    """Guesses that a text goes on as it has ended."""

    max_draft_tokens = 3

    def propose(self, requests: Sequence[Request]) -> Sequence[list[int]]:
        return [[request.token_ids[-1]] * self.max_draft_tokens for request in requests]


class AllExperts:
    """Lets every expert answer every token, and takes the K that count: no shape depends on a value."""

    supports_cuda_graphs = True

    def __init__(self) -> None:
        self.layers: set[int] = set()

    def __call__(self, mlp: SparseMLP, x: Tensor, router_logits: Tensor) -> Tensor:
        self.layers.add(mlp.layer)
        weights, chosen = topk_router(router_logits, mlp.num_experts_per_tok, mlp.norm_topk_prob)
        shares = torch.zeros_like(router_logits).scatter(1, chosen, weights)  # [T, E]
        gate_up = torch.einsum("th,eih->tei", x, mlp.experts.gate_up_proj)
        answers = torch.einsum("tei,ehi->teh", swiglu(gate_up), mlp.experts.down_proj)
        return torch.einsum("te,teh->th", shares, answers)


class KnowsMost(Proposer):
    """Knows how each request goes on without drafts, and lies now and then, about the length of the text too."""

    max_draft_tokens = 5

    def __init__(self, truth: dict[str, tuple[int, ...]], seed: int) -> None:
        self.truth, self.rng = truth, random.Random(seed)
        self.num_proposed = 0

    def propose(self, requests: Sequence[Request]) -> Sequence[list[int]]:
        return [self.guess(request) for request in requests]

    def guess(self, request: Request) -> list[int]:
        following = [*self.truth[request.request_id][request.num_output_tokens :], *range(9)]
        drafts = following[: self.rng.randint(0, self.max_draft_tokens)]
        drafts = [self.rng.randrange(VOCAB) if self.rng.random() < 0.2 else draft for draft in drafts]
        self.num_proposed += len(drafts)
        return drafts


def engine_with(model: Qwen3ForCausalLM, options: dict[str, Any], **seams: Any) -> LLMEngine:
    config = EngineConfig.from_options(**{"block_size": 4, "num_blocks": 256, "max_model_len": 70, **options})
    return LLMEngine(model, NumberTokenizer(), config, resolve(), **seams)  # type: ignore[arg-type]


def requests() -> list[tuple[list[int], SamplingParams]]:
    """Greedy and drawn, with all that looks at the output so far; some prompts begin alike."""
    rng = random.Random(5)
    shared = [rng.randrange(VOCAB) for _ in range(13)]
    all_params = [
        SamplingParams(max_tokens=17),
        SamplingParams(max_tokens=40, stop=("7", " 3 "), min_tokens=2),
        SamplingParams(max_tokens=14, temperature=1.0, seed=1, n=3),
        SamplingParams(max_tokens=20, temperature=0.7, top_p=0.9, top_k=40, seed=2, logprobs=3),
        SamplingParams(max_tokens=20, repetition_penalty=1.4, presence_penalty=0.5, frequency_penalty=0.3),
        SamplingParams(max_tokens=25, stop_token_ids=tuple(range(30, 42)), min_tokens=5, temperature=1.5, seed=3),
        SamplingParams(max_tokens=12, logit_bias={11: 30.0}, logprobs=0),  # says 11, mostly
        SamplingParams(max_tokens=9, temperature=1.0, min_p=0.05, seed=4, allowed_tokens=odd_after_even),
        SamplingParams(max_tokens=1),
        SamplingParams(max_tokens=200),  # up to the longest that there may be
    ]
    prompts = [[*shared[: rng.choice([4, 8, 13])], *range(rng.randint(1, 14))] for _ in all_params]
    return list(zip(prompts, all_params, strict=True))


def odd_after_even(output: Sequence[int]) -> Tensor:
    """Allows the tokens whose parity is not that of the last one."""
    allowed = torch.zeros(VOCAB, dtype=torch.bool)
    allowed[1 - output[-1] % 2 if output else 0 :: 2] = True
    return allowed


#: Room for all; prompts in chunks; a pool that preempts; and both.
LIMITS: dict[str, dict[str, Any]] = {
    "room": {},
    "chunks": {"max_num_batched_tokens": 9},
    "preemption": {"num_blocks": 22},
    "both": {"num_blocks": 22, "max_num_batched_tokens": 12, "max_num_seqs": 5},
    "no prefix cache": {"num_blocks": 26, "enable_prefix_caching": False},
}


def serve(engine: LLMEngine) -> tuple[dict[str, CompletionOutput], dict[str, str]]:
    """All requests twice, the second time with their prompts cached: outputs by name, and the texts as they came."""
    texts: dict[str, str] = {}

    def listen(delta: OutputDelta) -> None:
        name = f"{delta.request_id}.{delta.index}"
        texts[name] = texts.get(name, "") + delta.text

    outputs: dict[str, CompletionOutput] = {}
    for turn in "ab":
        for number, (prompt, params) in enumerate(requests()):
            engine.add_request(prompt, params, f"{turn}{number}", listen)
        while engine.has_unfinished:
            for done in engine.step():
                outputs |= {f"{done.request_id}.{output.index}": output for output in done.outputs}
            for request in engine.scheduler.running:
                assert engine.kv.table(request.request_id).num_tokens == request.num_computed_tokens
    return outputs, texts


def assert_same(got: LLMEngine, expected: dict[str, CompletionOutput]) -> None:
    """The same tokens, texts, reasons and reports, and nothing lost."""
    outputs, texts = serve(got)
    assert outputs.keys() == expected.keys()
    for name, output in outputs.items():
        wanted = expected[name]
        assert (output.token_ids, output.text, output.finish_reason) == (
            (wanted.token_ids, wanted.text, wanted.finish_reason)
        ), name
        assert texts[name] == wanted.text
        assert len(output.metrics.token_times) == len(output.token_ids)
        reports = [(report.token_id, report.rank) for report in output.logprobs or ()]
        assert reports == [(report.token_id, report.rank) for report in wanted.logprobs or ()]
    assert_no_block_lost(got)


@cache
def without_drafts(limits: str) -> tuple[dict[str, CompletionOutput], Sequence[StepRecord]]:
    """The outputs of plain decoding, and its steps."""
    engine = engine_with(MODEL, LIMITS[limits])
    return serve(engine)[0], list(engine.step_records)


@pytest.mark.parametrize("limits", LIMITS)
def test_outputs_with_a_toy_proposer_equal_those_without(limits: str) -> None:
    expected, steps = without_drafts(limits)
    engine = engine_with(MODEL, LIMITS[limits], proposer=RepeatsTheLast())
    assert_same(engine, expected)
    assert {output.finish_reason for output in expected.values()} == {FinishReason.STOP, FinishReason.LENGTH}
    assert len(engine.step_records) < len(steps), "the one that says 11 is guessed"
    if "num_blocks" in LIMITS[limits]:
        assert sum(step.num_preempted for step in steps) > 0
    if LIMITS[limits].get("enable_prefix_caching", True):
        assert sum(step.num_prefix_tokens_hit for step in engine.step_records) > 0


@pytest.mark.parametrize("limits", LIMITS)
def test_and_with_guesses_that_are_mostly_right(limits: str) -> None:
    expected, steps = without_drafts(limits)
    proposer = KnowsMost({name: output.token_ids for name, output in expected.items()}, seed=0)
    engine = engine_with(MODEL, LIMITS[limits], proposer=proposer)
    assert_same(engine, expected)
    assert proposer.num_proposed > 100
    if "max_num_batched_tokens" not in LIMITS[limits]:
        assert len(engine.step_records) < 0.7 * len(steps)


def test_right_guesses_give_several_tokens_a_step_and_no_more_than_are_left() -> None:
    truth = tuple(dense_greedy(MODEL, [1, 2, 3], 12)[0])
    proposer = KnowsMost({"a.0": truth}, seed=0)
    proposer.guess = lambda request: [*truth[request.num_output_tokens :], *range(9)][:5]  # type: ignore[method-assign]
    engine = engine_with(MODEL, {}, proposer=proposer)
    engine.add_request([1, 2, 3], SamplingParams(max_tokens=12), "a")
    sizes = []
    while engine.has_unfinished:
        before = sum(len(request.token_ids) for request in engine.scheduler.running)
        outputs = engine.step()
        sizes.append(sum(len(request.token_ids) for request in engine.scheduler.running) - before)
    assert sizes[1:-1] == [6]
    assert outputs[0].outputs[0].token_ids == truth
    assert [record.num_prefill_tokens for record in engine.step_records] == [3, 6, 5], "1 + 5, then the 5 that are left"


def test_a_draft_is_sampled_as_if_it_were_output_already() -> None:
    """Row by row what sampling gives for a request that has the drafts before it as output, errors included."""
    torch.manual_seed(0)
    params = SamplingParams(
        temperature=0.9,
        seed=8,
        repetition_penalty=1.3,
        frequency_penalty=0.4,
        min_tokens=3,
        allowed_tokens=odd_after_even,
    )
    drafts = [4, 7, 2]
    logits = 3 * torch.randn(4, VOCAB)
    known = make_request(params, prompt=[1, 2], output=[5], end_token_ids=[9])
    expected = [
        sample(logits[i : i + 1], [make_request(params, prompt=[1, 2], output=[5, *drafts[:i]], end_token_ids=[9])])[0]
        for i in range(4)
    ]
    for kept in range(4):
        guesses = [token.token_id for token in expected[:kept]]  # type: ignore[union-attr]
        truth = [
            sample(
                logits[i : i + 1], [make_request(params, prompt=[1, 2], output=[5, *guesses[:i]], end_token_ids=[9])]
            )[0]
            for i in range(kept + 1)
        ]
        (got,) = ExactVerifier().verify(logits[: kept + 1], [known], [guesses])
        assert got == truth[: len(got)]
        assert len(got) == kept + 1 or got[-1].token_id != guesses[len(got) - 1]  # type: ignore[union-attr]


def test_an_error_behind_a_wrong_draft_harms_nobody() -> None:
    logits = torch.zeros(3, VOCAB)
    logits[0, 5] = 1
    logits[1:] = torch.nan
    (wrong,) = ExactVerifier().verify(logits, [make_request()], [[6, 7]])
    assert [token.token_id for token in wrong] == [5]  # type: ignore[union-attr]
    (right,) = ExactVerifier().verify(logits, [make_request()], [[5, 7]])
    assert [type(token).__name__ for token in right] == ["Sampled", "GenerationError"]


# ------------------------------------------------------------ experts


def sparse_engine(model: Qwen3ForCausalLM, budget: int = 11, **seams: Any) -> LLMEngine:
    engine = engine_with(model, {"num_blocks": 30, "max_num_batched_tokens": budget}, **seams)
    for length in (1, 9, 17):
        engine.add_request(list(range(length)), SamplingParams(max_tokens=9, ignore_eos=True), str(length))
    engine.add_request([1, 2], SamplingParams(max_tokens=6, n=2, temperature=1.0, seed=4), "drawn")
    return engine


def tokens_of(engine: LLMEngine) -> dict[str, list[tuple[int, ...]]]:
    outputs: dict[str, list[tuple[int, ...]]] = {}
    while engine.has_unfinished:
        outputs |= {output.request_id: [each.token_ids for each in output.outputs] for output in engine.step()}
    return outputs


def test_a_toy_expert_operation_runs_the_sparse_layers() -> None:
    model = random_model(small_sparse_config(decoder_sparse_step=2))
    experts = AllExperts()
    assert tokens_of(sparse_engine(model, experts=experts)) == tokens_of(sparse_engine(model))
    assert experts.layers == set(model.config.sparse_layers) == {1}


@pytest.mark.parametrize("drafting", [False, True])
def test_graphs_hold_what_says_that_they_can(drafting: bool) -> None:
    """Experts and verification too: recordings by batch size and by tokens a sequence."""
    model = random_model(small_sparse_config())
    engine = sparse_engine(model, 64, experts=AllExperts(), proposer=RepeatsTheLast() if drafting else None)
    runner = engine.runner
    assert isinstance(runner, ModelRunner)
    assert not runner.supports_cuda_graphs
    capturable = ModelRunner(model, runner.cache, runner.block_size, CapturableAttention(), runner.experts)
    assert capturable.supports_cuda_graphs
    assert not ModelRunner(model, runner.cache, runner.block_size, CapturableAttention()).supports_cuda_graphs
    runner.graphs = graphs = DecodeGraphs(
        capturable.forward,
        model.embed_tokens.weight,
        runner.block_size,
        max_batch=6,
        max_blocks=30,
        max_query_len=4 if drafting else 1,
        capture=record,
    )
    assert tokens_of(engine) == tokens_of(sparse_engine(model))
    assert {query_len for _, query_len in graphs.recorded} >= ({1, 4} if drafting else {1})
