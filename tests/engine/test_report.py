"""The numbers of a load, worked out by hand on a few requests and held against a real run."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import make_engine, tiny_model

from tinyllm.engine.metrics import RequestMetrics, StepRecord
from tinyllm.engine.report import SLO, Distribution, duration, goodput, summarize
from tinyllm.sampling_params import SamplingParams

FAST = RequestMetrics(arrival=10.0, token_times=[10.5, 10.75, 11.0])
SLOW = RequestMetrics(arrival=11.0, token_times=[13.0, 13.25, 14.25, 14.5, 15.0])
SHORT = RequestMetrics(arrival=12.0, token_times=[12.25])
FAILED = RequestMetrics(arrival=12.0)
STEP = StepRecord(
    step=0,
    start=0.0,
    end=1.0,
    num_prefill_tokens=0,
    num_decode_tokens=0,
    num_running=0,
    num_waiting=0,
    num_free_blocks=0,
    num_table_blocks=5,
    num_block_references=0,
    num_cached_tokens=0,
    num_wasted_slots=0,
    num_preempted=0,
)


def test_a_load_by_hand() -> None:
    steps = [
        replace(STEP, num_admitted_tokens=30, num_prefix_tokens_hit=6, num_preempted=2),
        replace(STEP, end=3.0, num_table_blocks=10, num_admitted_tokens=10, num_preempted=1),
    ]
    report = summarize([FAST, SLOW, SHORT, FAILED], steps, num_blocks=20)
    assert (report.num_outputs, report.num_failed, report.num_tokens, report.num_steps) == (3, 1, 9, 2)
    assert report.duration == 5.0
    assert report.tokens_per_s == pytest.approx(9 / 5)
    assert report.outputs_per_s == pytest.approx(3 / 5)
    assert (report.ttft.p50, report.ttft.max) == (0.5, 2.0)
    assert report.tpot.mean == pytest.approx((0.25 + 0.5) / 2), "SHORT has no TPOT"
    assert report.itl.mean == pytest.approx((0.25 + 0.25 + 0.25 + 1.0 + 0.25 + 0.5) / 6)
    assert (report.itl.p50, report.itl.max) == (0.25, 1.0)
    assert report.latency.max == 4.0
    assert report.kv_use_mean == pytest.approx((1 * 0.25 + 3 * 0.5) / 4)
    assert report.kv_use_peak == 0.5
    assert report.prefix_hit_rate == pytest.approx(6 / 40)
    assert report.num_preemptions == 3
    assert "3 outputs, 9 tokens in 5.00 s and 2 steps: 0.60 outputs/s, 1.8 tokens/s; 1 failed" in str(report)
    assert "TTFT        916.7    500.0" in str(report)
    assert asdict(report)["ttft"]["p50"] == 0.5


@pytest.mark.parametrize(
    ("slo", "good"),
    [
        (SLO(), 3),
        (SLO(ttft=0.5), 2),
        (SLO(ttft=0.49), 1),
        (SLO(tpot=0.3), 2),
        (SLO(itl=0.9), 2),
        (SLO(itl=1.0), 3),
        (SLO(tpot=0.5, itl=0.25), 2),
        (SLO(ttft=0.0), 0),
    ],
    ids=str,
)
def test_goodput_counts_what_meets_the_slo(slo: SLO, good: int) -> None:
    assert goodput([FAST, SLOW, SHORT, FAILED], slo) == pytest.approx(good / 5)


def test_nothing_served() -> None:
    report = summarize([FAILED], [], num_blocks=4)
    assert (report.num_outputs, report.num_failed, report.duration, report.tokens_per_s) == (0, 1, 0.0, 0.0)
    assert math.isnan(report.ttft.p99)
    assert goodput([], SLO()) == 0.0
    assert duration([FAILED]) == 0.0
    assert str(report)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_are_in_order(values: list[float]) -> None:
    got = Distribution.of(values)
    assert min(values) <= got.p50 <= got.p90 <= got.p99 <= got.max == max(values)


def test_a_real_run() -> None:
    engine = make_engine(tiny_model(), num_blocks=16, block_size=4)
    metrics = []
    for _ in range(2):
        for i in range(8):
            params = SamplingParams(max_tokens=10, n=1 + (i == 0), temperature=1.0, seed=i)
            engine.add_request([7] * 8 + [i, i, i], params)
        while engine.has_unfinished:
            metrics += [output.metrics for finished in engine.step() for output in finished.outputs]
    report = summarize(metrics, engine.step_records, engine.kv.num_blocks)
    assert report.num_outputs == 18
    assert report.num_tokens == 180
    assert report.num_preemptions == sum(item.num_preemptions for item in metrics) > 0
    admitted = sum(record.num_admitted_tokens for record in engine.step_records)
    assert admitted >= 16 * 11, "each prompt once, and what was preempted again"
    assert 0.5 < report.prefix_hit_rate < 1, "two of three blocks of each prompt are shared"
    assert 0 < report.kv_use_mean <= report.kv_use_peak <= 1
    assert report.duration <= engine.step_records[-1].end - min(item.arrival for item in metrics)
