"""The engine end to end on tiny models: the same tokens whatever the pool, the batch and the schedule."""

from __future__ import annotations

import random

import pytest
import torch
from support.models import VOCAB, assert_no_block_lost, dense_greedy, drain, make_engine, tiny_model

from tinyllm.config import SamplingParams
from tinyllm.engine.engine import LLMEngine
from tinyllm.errors import RequestError

GREEDY = SamplingParams(max_tokens=12)
MODEL = tiny_model()


def random_prompts(count: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(VOCAB) for _ in range(rng.randint(1, 40))] for _ in range(count)]


def run(
    engine: LLMEngine, prompts: list[list[int]], params: SamplingParams = GREEDY
) -> list[tuple[tuple[int, ...], ...]]:
    """The continuations of each prompt, all running together."""
    for i, prompt in enumerate(prompts):
        engine.add_request(prompt, params, str(i))
    outputs = drain(engine)
    return [outputs[str(i)] for i in range(len(prompts))]


@pytest.fixture(scope="module")
def expected() -> list[tuple[tuple[int, ...], ...]]:
    """What the dense cache says, one request at a time."""
    with torch.inference_mode():
        answers = [dense_greedy(MODEL, prompt, GREEDY.max_tokens) for prompt in random_prompts(30)]
    assert min(gap for _, gap in answers) > 1e-4, "a near-tie: choose another seed, or this test may flip"
    return [(tuple(tokens),) for tokens, _ in answers]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="roomy"),
        pytest.param({"num_blocks": 16}, id="tiny pool, preemption"),
        pytest.param({"max_num_batched_tokens": 1}, id="one token a step"),
        pytest.param({"max_num_batched_tokens": 7}, id="chunks of seven"),
        pytest.param({"max_num_seqs": 1}, id="one by one"),
        pytest.param({"enable_prefix_caching": False}, id="no prefix cache"),
        pytest.param({"block_size": 1, "num_blocks": 70}, id="blocks of one token"),
        pytest.param({"block_size": 64, "num_blocks": 3}, id="contiguous reservation"),
    ],
)
def test_same_tokens_under_any_schedule(options: dict[str, int], expected: list[tuple[tuple[int, ...], ...]]) -> None:
    engine = make_engine(MODEL, **options)
    assert run(engine, random_prompts(30)) == expected
    assert_no_block_lost(engine)


def test_a_tiny_pool_really_preempts() -> None:
    engine = make_engine(MODEL, num_blocks=16)
    run(engine, random_prompts(30))
    assert sum(record.num_preempted for record in engine.step_records) > 0


def test_a_prompt_seen_before_computes_one_block_at_most() -> None:
    """A prompt of whole blocks, fully cached, must still leave one token to compute."""
    prompt = list(range(16))
    engine = make_engine(MODEL)
    first = run(engine, [prompt])
    computed = [r.num_prefill_tokens + r.num_decode_tokens for r in engine.step_records]
    again = make_engine(MODEL)
    assert run(again, [prompt]) == first
    again.add_request(prompt, GREEDY, "again")
    num_steps = len(again.step_records)
    assert drain(again)["again"] == first[0]
    assert computed[0] == 16
    record = again.step_records[num_steps]
    assert record.num_prefill_tokens + record.num_decode_tokens == 4


def test_n_continuations_share_the_prompt_and_equal_those_of_single_requests() -> None:
    prompt = list(range(30))
    params = SamplingParams(temperature=1.0, seed=7, n=4, max_tokens=10)
    engine = make_engine(MODEL)
    (together,) = run(engine, [prompt], params)
    assert len(set(together)) > 1, "four draws at temperature 1 should differ"
    shared = engine.step_records[1]
    assert shared.num_block_references - shared.num_table_blocks == 3 * 7  # 28 of 30 tokens are full blocks, by three
    assert (run(make_engine(MODEL, num_blocks=12), [prompt], params)) == [together], "under preemption"
    assert_no_block_lost(engine)


def test_a_seeded_request_draws_the_same_tokens_in_any_company() -> None:
    params = SamplingParams(temperature=0.9, top_k=20, top_p=0.9, seed=3, max_tokens=10)
    prompts = random_prompts(12, seed=5)
    alone = [run(make_engine(MODEL), [prompt], params)[0] for prompt in prompts]
    assert run(make_engine(MODEL, num_blocks=20), prompts, params) == alone


def test_no_seed_draws_afresh() -> None:
    params = SamplingParams(temperature=1.0, max_tokens=20)
    assert run(make_engine(MODEL), [[1, 2, 3]], params) != run(make_engine(MODEL), [[1, 2, 3]], params)


def test_the_end_token_stops_even_as_the_first_one() -> None:
    prompt = [5, 6, 7]
    (first,), _ = dense_greedy(MODEL, prompt, 1)
    ending = tiny_model(eos_token_ids=(first,))
    engine = make_engine(ending)
    engine.add_request(prompt, GREEDY, "a")
    (output,) = engine.step()
    assert output.outputs[0].finish_reason == "stop"
    assert output.outputs[0].token_ids == (first,)
    assert len(run(make_engine(ending), [prompt], SamplingParams(max_tokens=5, ignore_eos=True))[0][0]) == 5


def test_a_stop_string_may_cross_tokens() -> None:
    prompt = [5, 6, 7]
    tokens, _ = dense_greedy(MODEL, prompt, 6)
    text = " ".join(map(str, tokens))
    stop = text[text.index(" ") - 1 : text.index(" ") + 2]  # the end of the first number and the start of the second
    engine = make_engine(MODEL)
    engine.add_request(prompt, SamplingParams(max_tokens=6, stop=("never", stop)))
    while not (finished := engine.step()):
        pass
    (output,) = finished[0].outputs
    assert output.finish_reason == "stop"
    assert output.text == text[: text.index(stop)]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (SamplingParams(max_tokens=5, stop="END"), (1, "", "stop")),
        (SamplingParams(max_tokens=1, stop="D\ufffd"), (1, "EN", "stop")),
        (SamplingParams(max_tokens=1, stop="D\ufffd", min_tokens=1), (1, "END\ufffd", "length")),
        (SamplingParams(max_tokens=2, stop="D", min_tokens=1), (2, "END\ufffdEN", "stop")),
    ],
    ids=str,
)
def test_a_stop_string_in_a_token_that_begins_half_a_character(
    params: SamplingParams, expected: tuple[int, str, str]
) -> None:
    engine = make_engine(MODEL)
    engine.tokenizer.decode = lambda ids: (b"END\xe2" * len(ids)).decode(errors="replace")  # type: ignore[method-assign]
    engine.add_request([5, 6, 7], params)
    while not (finished := engine.step()):
        pass
    (output,) = finished[0].outputs
    assert (len(output.token_ids), output.text, output.finish_reason) == expected


def test_a_stop_token_ends_the_output_and_stays_out_of_the_text() -> None:
    prompt = [5, 6, 7]
    tokens, _ = dense_greedy(MODEL, prompt, 6)
    stop = next(token for token in tokens[1:] if token != tokens[0])
    ids = tuple(tokens[: tokens.index(stop) + 1])
    engine = make_engine(MODEL)
    engine.add_request(prompt, SamplingParams(stop_token_ids=(stop, 0), ignore_eos=True), "a")
    while not (finished := engine.step()):
        pass
    (output,) = finished[0].outputs
    assert (output.token_ids, output.finish_reason) == (ids, "stop")
    assert output.text == " ".join(map(str, ids[:-1]))


def test_min_tokens_come_whatever_would_end_the_output() -> None:
    prompt = [5, 6, 7]
    tokens, _ = dense_greedy(MODEL, prompt, 6)
    ending = tiny_model(eos_token_ids=tuple(set(tokens)))
    for params in (
        SamplingParams(min_tokens=5, stop=[str(tokens[1])], ignore_eos=True),
        SamplingParams(min_tokens=5, stop_token_ids=tokens, ignore_eos=True),
        SamplingParams(min_tokens=5),
    ):
        ((output,),) = run(make_engine(ending), [prompt], params)
        assert len(output) >= 5
        if not params.stop:
            assert not set(output[:5]) & set(tokens)


@pytest.mark.parametrize("options", [{"stop_token_ids": [VOCAB]}, {"logit_bias": {-1: 1.0}}], ids=str)
def test_parameters_with_unknown_tokens_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=f"{next(iter(options))} holds token ids outside 0 to 96"):
        make_engine(MODEL).add_request([1], SamplingParams(**options))  # type: ignore[arg-type]


def test_output_ends_at_max_model_len() -> None:
    engine = make_engine(MODEL, num_blocks=3)
    engine.add_request([1, 2, 3, 4, 5], SamplingParams(max_tokens=100), "a")
    assert len(drain(engine)["a"][0]) == 12 - 5


def test_abort_at_any_time_frees_everything() -> None:
    engine = make_engine(MODEL, num_blocks=16)
    for i, prompt in enumerate(random_prompts(10)):
        engine.add_request(prompt, SamplingParams(n=2, temperature=1.0, max_tokens=12), str(i))
    rng = random.Random(0)
    while engine.has_unfinished:
        engine.abort(str(rng.randrange(40)))
        engine.step()
    assert_no_block_lost(engine)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([], "empty"),
        ([1, 2, VOCAB], "outside 0 to 96"),
        ([-1], "outside 0 to 96"),
        ([1.5], "list of token ids"),
        (["12"], "list of token ids"),
        (None, "list of token ids"),
        ([1] * 64, "64 tokens.*64.*16 blocks of 4"),
        ([1] * 5000, "5000 tokens"),
    ],
)
def test_a_prompt_that_can_never_be_served_is_refused_and_others_go_on(prompt: list[int], words: str) -> None:
    engine = make_engine(MODEL, num_blocks=16)
    engine.add_request([1, 2, 3], GREEDY, "good")
    with pytest.raises(RequestError, match=words):
        engine.add_request(prompt, GREEDY)
    assert len(drain(engine)["good"][0]) == 12


def test_two_requests_of_one_name_are_refused() -> None:
    engine = make_engine(MODEL)
    engine.add_request([1], GREEDY, "a")
    with pytest.raises(RequestError, match="already"):
        engine.add_request([1], GREEDY, "a")
