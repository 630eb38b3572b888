"""The throughput study runs, all ways give the same tokens, and the ratios are those of its rates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import pytest

from benchmarks import throughput
from benchmarks.throughput import QUICK, measure, ratios, run_in_turns
from tinyllm.paths import project_root, shipped_checkpoint
from tinyllm.plots import throughput_bars
from tinyllm.traces import TraceRequest

TINY = replace(QUICK, num_requests=5, max_len=24, batch_sizes=(2, 4), matmul_size=64, copy_bytes=2**12)
TRACE = [TraceRequest((1, 2), 3), TraceRequest((4,), 2)]


@pytest.mark.needs("checkpoint")
@pytest.mark.needs("g++")
@pytest.mark.usefixtures("one_thread")
def test_the_study_runs_and_all_ways_agree() -> None:
    values = measure(shipped_checkpoint("draft"), TINY, seed=0, device="cpu", with_profile=True)
    values = json.loads(json.dumps(values))
    ways = {"tinyllm", "tinyllm_torch", "one_by_one", "padded_2", "padded_4", "continuous_batching"}
    assert values["not_measured"] == {}
    assert set(values["tokens_per_second"]) == ways
    assert values["outputs_as_ours"] == dict.fromkeys(ways, TINY.num_requests)
    assert all(len(times) == 1 for times in values["seconds"].values())
    assert values["latency"]["ttft"]["p50"] <= values["latency"]["latency"]["max"]
    assert throughput_bars(values).axes
    profile = values["profile"]
    assert sum(row["share"] for row in profile["parts"].values()) == pytest.approx(1)
    assert profile["parts"]["matrices"]["seconds"] > 0
    assert profile["operators"]["heaviest"][0]["share"] > 0
    floor = profile["floor"]
    assert floor["floor_seconds"] == max(floor["compute_seconds"], floor["memory_seconds"])


def constant(trace: Sequence[TraceRequest]) -> list[list[int]]:
    return [[7] * request.output_len for request in trace]


def broken(trace: Sequence[TraceRequest]) -> list[list[int]]:
    raise NotImplementedError("not on this machine")


def short(trace: Sequence[TraceRequest]) -> list[list[int]]:
    return [[7] for _ in trace]


def test_a_way_that_fails_is_named_with_its_reason() -> None:
    serves = {"tinyllm": constant, "other": broken, "cheat": short}
    seconds, outputs, failed = run_in_turns(serves, TRACE, rounds=3)
    assert list(seconds) == ["tinyllm"]
    assert len(seconds["tinyllm"]) == 3
    assert outputs == {"tinyllm": [[7, 7, 7], [7, 7]]}
    assert failed["other"] == "NotImplementedError: not on this machine"
    assert "not as long as the trace asks" in failed["cheat"]


def test_our_own_failure_ends_the_study() -> None:
    with pytest.raises(NotImplementedError):
        run_in_turns({"tinyllm": broken}, TRACE, rounds=1)


def test_ratios_are_over_the_fastest_padded_batch() -> None:
    rates = {"tinyllm": 100.0, "one_by_one": 10.0, "padded_4": 20.0, "padded_8": 25.0}
    assert ratios(rates) == {"over_one_by_one": 10.0, "fastest_padded": "padded_8", "over_fastest_padded": 4.0}


def test_the_pool_holds_every_request_to_its_end() -> None:
    assert throughput.engine_config(TRACE).cache.num_blocks == 2
    assert throughput.engine_config([TraceRequest((0,) * 16, 1)]).cache.num_blocks == 2


def test_the_committed_result_is_whole_and_its_ratios_are_those_of_its_times() -> None:
    result = json.loads((project_root() / "benchmarks" / "results" / "throughput.json").read_text(encoding="utf-8"))
    assert result["not_measured"] == {}
    assert set(result["outputs_as_ours"].values()) == {result["settings"]["num_requests"]}
    rates = result["tokens_per_second"]
    for way, seconds in result["seconds"].items():
        assert len(seconds) == result["settings"]["rounds"]
        assert rates[way] == pytest.approx(result["num_output_tokens"] / median(seconds))
    assert result["ratios"] == ratios(rates)
