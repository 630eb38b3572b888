"""The study of a step's cost beside the model runs, counts each part once, and knows what growth is."""

from __future__ import annotations

import json
from time import perf_counter

import pytest
from support.models import make_engine, tiny_model

from benchmarks.scheduler_overhead import Sizes, growth, measure
from benchmarks.stopwatch import MODEL_PARTS, OTHER_PARTS, Stopwatch, watch
from tinyllm.paths import shipped_checkpoint
from tinyllm.plots import step_overhead
from tinyllm.sampling_params import SamplingParams


@pytest.mark.needs("checkpoint")
def test_the_study_runs() -> None:
    sizes = Sizes(with_model=((2, 8),), stand_in=((1, 8), (3, 8), (3, 40)), steps=2)
    values = json.loads(json.dumps(measure(shipped_checkpoint("draft"), sizes, seed=0)))
    with_model = values["model"]["2"]["8"]
    assert all(with_model["parts_ms"][part] > 0 for part in (*MODEL_PARTS, *OTHER_PARTS))
    for row in (values["stand_in"]["1"]["8"], values["stand_in"]["3"]["40"]):
        assert [row["parts_ms"][part] for part in MODEL_PARTS] == [0, 0, 0]
        assert all(row["parts_ms"][part] > 0 for part in OTHER_PARTS)
        assert row["outside_share"] == 1
    assert step_overhead(values).axes


def test_growth_is_an_exponent() -> None:
    rows = {
        str(number): {str(context): {"outside_ms": number**2 * context**0.5} for context in (256, 1024)}
        for number in (1, 64, 512)
    }
    assert growth(rows) == pytest.approx({"exponent_of_requests": 2, "exponent_of_context": 0.5})


def test_time_is_counted_once_and_for_the_innermost_part() -> None:
    stopwatch = Stopwatch()

    def wait(seconds: float) -> None:
        end = perf_counter() + seconds
        while perf_counter() < end:
            pass

    inner = stopwatch.timed("inner", lambda: wait(0.02))

    def both() -> None:
        inner()
        wait(0.005)

    start = perf_counter()
    stopwatch.timed("outer", both)()
    whole = perf_counter() - start
    lap = stopwatch.lap()
    assert sum(lap.values()) <= whole
    assert lap["inner"] >= 0.02
    assert lap["outer"] >= 0.005
    assert stopwatch.lap() == {}


def test_watching_changes_nothing_and_ends() -> None:
    model = tiny_model()
    engine = make_engine(model)
    outputs = []
    for watched in (False, True):
        engine.add_request([1, 2, 3], SamplingParams(max_tokens=4), f"watched {watched}")
        if watched:
            with watch(engine) as stopwatch:
                while engine.has_unfinished:
                    outputs += [output.outputs[0].token_ids for output in engine.step()]
        else:
            while engine.has_unfinished:
                outputs += [output.outputs[0].token_ids for output in engine.step()]
    assert outputs[0] == outputs[1]
    seconds = stopwatch.lap()
    assert set(seconds) == {*MODEL_PARTS, *OTHER_PARTS}
    assert "forward" not in vars(model)
    assert not any("forward" in vars(module) for module in model.modules())
    engine.add_request([1, 2, 3], SamplingParams(max_tokens=1))
    engine.step()
    assert stopwatch.lap() == {}
