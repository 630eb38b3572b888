"""What a served load amounts to: latencies and their percentiles, throughput, goodput, and how the KV pool did."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyllm.engine.metrics import RequestMetrics, StepRecord


@dataclass(frozen=True, slots=True)
class Distribution:
    """Mean, percentiles and maximum of some times, in seconds; NaN where there was nothing to measure."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Distribution:
        """Percentiles between two values are interpolated."""
        given = np.array(list(values), dtype=np.float64)
        if not len(given):
            return cls(*[math.nan] * 5)
        p50, p90, p99 = np.percentile(given, [50, 90, 99]).tolist()
        return cls(float(given.mean()), p50, p90, p99, float(given.max()))


@dataclass(frozen=True, slots=True)
class SLO:
    """A service-level objective: the latencies that a user still finds good, in seconds. What is not given is free.

    Attributes:
        ttft: time to first token, at most.
        tpot: mean time per output token after the first, at most.
        itl: every single gap between two tokens, at most.
    """

    ttft: float = math.inf
    tpot: float = math.inf
    itl: float = math.inf

    def met_by(self, metrics: RequestMetrics) -> bool:
        """Whether an output met all of them; one without any token did not."""
        return (
            bool(metrics.token_times)
            and metrics.ttft <= self.ttft
            and metrics.tpot <= self.tpot
            and all(gap <= self.itl for gap in metrics.itl)
        )


@dataclass(frozen=True, slots=True)
class LoadReport:
    """A load in numbers. Outputs count, not requests: a request with n = 4 has four.

    Attributes:
        num_outputs: outputs with at least one token.
        num_failed: outputs that never had a token.
        num_tokens: output tokens of them all.
        duration: seconds from the first arrival to the last token.
        ttft, tpot, itl, latency: as `RequestMetrics` defines them; outputs of one token have no TPOT.
        kv_use_mean, kv_use_peak: share of the pool's blocks that running requests held, over the time of all steps.
        prefix_hit_rate: share of the tokens of admitted requests whose K and V the prefix cache had.
        num_preemptions: how often a request lost its blocks and was computed again.
    """

    num_outputs: int
    num_failed: int
    num_tokens: int
    duration: float
    ttft: Distribution
    tpot: Distribution
    itl: Distribution
    latency: Distribution
    num_steps: int
    kv_use_mean: float
    kv_use_peak: float
    prefix_hit_rate: float
    num_preemptions: int

    @property
    def outputs_per_s(self) -> float:
        """Finished outputs per second."""
        return ratio(self.num_outputs, self.duration)

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second."""
        return ratio(self.num_tokens, self.duration)

    def __str__(self) -> str:
        head = f"{'in ms':<8}{'mean':>9}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9}"
        rows = [
            f"{name:<8}" + "".join(f"{1000 * value:9.1f}" for value in (d.mean, d.p50, d.p90, d.p99, d.max))
            for name, d in {"TTFT": self.ttft, "TPOT": self.tpot, "ITL": self.itl, "latency": self.latency}.items()
        ]
        return "\n".join(
            [
                f"{self.num_outputs} outputs, {self.num_tokens} tokens in {self.duration:.2f} s "
                f"and {self.num_steps} steps: {self.outputs_per_s:.2f} outputs/s, {self.tokens_per_s:.1f} tokens/s; "
                f"{self.num_failed} failed",
                head,
                *rows,
                f"KV pool {self.kv_use_mean:.0%} used on average, {self.kv_use_peak:.0%} at most; "
                f"{self.prefix_hit_rate:.0%} of the prompts from the prefix cache; {self.num_preemptions} preemptions",
            ]
        )


def summarize(metrics: Sequence[RequestMetrics], steps: Sequence[StepRecord], num_blocks: int) -> LoadReport:
    """Put a load into numbers.

    Args:
        metrics: of every output.
        steps: the engine's records of the time in which they ran.
        num_blocks: N, blocks in the pool.
    """
    served = [item for item in metrics if item.token_times]
    times = [step.end - step.start for step in steps]
    held = [step.num_table_blocks / num_blocks for step in steps]
    return LoadReport(
        num_outputs=len(served),
        num_failed=len(metrics) - len(served),
        num_tokens=sum(len(item.token_times) for item in served),
        duration=duration(served),
        ttft=Distribution.of(item.ttft for item in served),
        tpot=Distribution.of(item.tpot for item in served if len(item.token_times) > 1),
        itl=Distribution.of(gap for item in served for gap in item.itl),
        latency=Distribution.of(item.latency for item in served),
        num_steps=len(steps),
        kv_use_mean=ratio(sum(time * share for time, share in zip(times, held, strict=True)), sum(times)),
        kv_use_peak=max(held, default=0.0),
        prefix_hit_rate=ratio(
            sum(step.num_prefix_tokens_hit for step in steps), sum(step.num_admitted_tokens for step in steps)
        ),
        num_preemptions=sum(step.num_preempted for step in steps),
    )


def goodput(metrics: Sequence[RequestMetrics], slo: SLO) -> float:
    """Outputs per second that meet the SLO, over the time from the first arrival to the last token."""
    return ratio(sum(slo.met_by(item) for item in metrics), duration(metrics))


def duration(metrics: Iterable[RequestMetrics]) -> float:
    """Seconds from the first arrival to the last token; 0 where there was none."""
    items = list(metrics)
    end = max((item.token_times[-1] for item in items if item.token_times), default=None)
    return 0.0 if end is None else end - min(item.arrival for item in items)


def ratio(part: float, whole: float) -> float:
    """`part / whole`, and 0 where there is no whole."""
    return part / whole if whole else 0.0
