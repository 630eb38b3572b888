"""Deltas: what each step adds to a request adds up to its output."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from support.models import VOCAB, make_engine, tiny_model

from tinyllm.engine.request import CompletionOutput, OutputDelta
from tinyllm.sampling_params import SamplingParams

MODEL = tiny_model()
PARAMS = {
    "plain": SamplingParams(max_tokens=9),
    "four": SamplingParams(max_tokens=9, n=4, temperature=1.0, seed=2, logprobs=1),
    "stop strings": SamplingParams(max_tokens=30, n=3, temperature=1.0, seed=3, stop=["1 4", "7 ", "22"]),
    "stop tokens": SamplingParams(max_tokens=30, n=3, temperature=1.0, seed=3, stop_token_ids=range(20)),
    "fails": SamplingParams(
        max_tokens=9, allowed_tokens=lambda output: torch.full((VOCAB,), len(output) < 3, dtype=torch.bool)
    ),
}


@pytest.mark.parametrize("num_blocks", [256, 24], ids=["roomy", "tiny pool"])
def test_deltas_add_up_to_the_output(num_blocks: int) -> None:
    engine = make_engine(MODEL, num_blocks=num_blocks)
    deltas: defaultdict[tuple[str, int], list[OutputDelta]] = defaultdict(list)
    for name, params in PARAMS.items():
        engine.add_request([1, 2, 3], params, name, lambda delta: deltas[delta.request_id, delta.index].append(delta))
    outputs: dict[tuple[str, int], CompletionOutput] = {}
    while engine.has_unfinished:
        for output in engine.step():
            outputs |= {(output.request_id, completion.index): completion for completion in output.outputs}
    assert set(deltas) == set(outputs)
    assert len(outputs) == sum(params.n for params in PARAMS.values())
    for key, output in outputs.items():
        got = deltas[key]
        assert "".join(delta.text for delta in got) == output.text
        assert tuple(token for delta in got for token in delta.token_ids) == output.token_ids
        assert [delta.finish_reason for delta in got] == [None] * (len(got) - 1) + [output.finish_reason]
        assert got[-1].error == output.error
        assert got[-1].metrics is output.metrics
        if output.logprobs is not None:
            assert tuple(report for delta in got for report in delta.logprobs or ()) == output.logprobs
    assert outputs["fails", 0].finish_reason == "error"
    stopped = [output for (name, _), output in outputs.items() if name == "stop strings"]
    assert "stop" in {output.finish_reason for output in stopped}


def test_listening_changes_nothing() -> None:
    for params in PARAMS.values():
        texts = []
        for on_delta in (None, lambda delta: None):
            engine = make_engine(MODEL)
            engine.add_request([4, 5], params, "a", on_delta)
            while not (finished := engine.step()):
                pass
            texts.append([(o.text, o.token_ids, o.finish_reason) for o in finished[0].outputs])
        assert texts[0] == texts[1]


def test_a_listener_that_raises_finds_the_engine_in_order() -> None:
    def deaf(delta: OutputDelta) -> None:
        raise BrokenPipeError

    engine = make_engine(MODEL)
    engine.add_request([1], SamplingParams(max_tokens=2), "a", deaf)
    engine.add_request([1], SamplingParams(max_tokens=2), "b")
    with pytest.raises(BrokenPipeError):
        engine.step()
    engine.abort("a")
    (output,) = engine.step()
    assert (output.request_id, len(output.outputs[0].token_ids)) == ("b", 2)
