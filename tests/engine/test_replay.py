"""Replaying a load: requests come at their times, engines take turns, and the course's load shows each day's gain."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from support.models import make_engine, tiny_model
from torch import Tensor

from tinyllm import replay as replay_module
from tinyllm import scoreboard
from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.model_runner import DryRunner
from tinyllm.engine.scheduler import Scheduler
from tinyllm.engine.scheduler_output import ScheduledRequest
from tinyllm.parts import resolve
from tinyllm.replay import Run, TimedRequest, replay
from tinyllm.traces import TraceRequest, poisson_arrivals

MODEL = tiny_model()


class Clock:
    """Stands in for the machine's clock; steps move it on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


class PricedRunner(DryRunner):
    """A step takes `step` seconds with one request, and `share` more of that for each further one."""

    def __init__(self, clock: Clock, step: float, share: float) -> None:
        super().__init__(MODEL.config.vocab_size)
        self.clock, self.seconds, self.share = clock, step, share

    def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
        self.clock.now += self.seconds * (1 + self.share * (len(scheduled) - 1))
        return super().execute(scheduled)


class StaticScheduler(Scheduler):
    """As the lessons have it."""

    def admit_waiting(self, budget: int) -> list[ScheduledRequest]:
        return [] if self.running else super().admit_waiting(budget)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(replay_module, "time", clock)
    return clock


def engine_with(
    clock: Clock, scheduler: type[Scheduler] = Scheduler, step: float = 1.0, share: float = 0.0, seats: int = 8
) -> LLMEngine:
    engine = make_engine(MODEL, resolve({"Scheduler": scheduler}), num_blocks=1024, max_num_seqs=seats)
    engine.runner = PricedRunner(clock, step, share)
    return engine


def test_a_request_is_served_when_its_time_has_come_and_idle_time_is_skipped(clock: Clock) -> None:
    load = [TimedRequest(arrival, TraceRequest((1, 2), 3)) for arrival in (0.0, 1.5, 100.0)]
    run = replay({"one": engine_with(clock)}, load)["one"]
    assert [item.arrival for item in run.metrics] == [0.0, 1.5, 100.0]
    assert [item.token_times for item in run.metrics] == [[1, 2, 3], [3, 4, 5], [101, 102, 103]]
    assert clock.now == 1000 + 5 + 3, "nobody waited for the third request"
    assert len(run.records) == 8


def test_engines_take_turns_and_each_clock_counts_its_own_steps(clock: Clock) -> None:
    load = [TimedRequest(0.0, TraceRequest((1, 2), 4))]
    order = []

    class Noted(PricedRunner):
        def execute(self, scheduled: Sequence[ScheduledRequest]) -> Tensor:
            order.append(self.seconds)
            return super().execute(scheduled)

    engines = {"slow": engine_with(clock), "fast": engine_with(clock)}
    engines["slow"].runner, engines["fast"].runner = Noted(clock, 2.0, 0.0), Noted(clock, 1.0, 0.0)
    runs = replay(engines, load)
    assert order == [2, 1, 1, 2, 1, 1, 2, 2]
    assert runs["slow"].metrics[0].token_times == [2, 4, 6, 8]
    assert runs["fast"].metrics[0].token_times == [1, 2, 3, 4]


def test_a_run_of_nothing_is_finished(clock: Clock) -> None:
    assert not Run(engine_with(clock), []).has_unfinished
    assert replay({"one": engine_with(clock)}, [])["one"].metrics == []


def test_arrivals_have_the_rate_that_is_asked_for() -> None:
    arrivals = poisson_arrivals(5000, rate=4.0, seed=1)
    assert arrivals == poisson_arrivals(5000, rate=4.0, seed=1)
    assert arrivals == sorted(arrivals)
    assert arrivals[0] == 0.0
    assert 5000 / arrivals[-1] == pytest.approx(4.0, rel=0.05)
    assert poisson_arrivals(1, 1.0) == [0.0]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2], ids=lambda share: f"share {share}")
@pytest.mark.parametrize("wrong", [0.75, 1.0, 2.0], ids=lambda wrong: f"measured {wrong} times")
@pytest.mark.parametrize("step", [0.001, 0.4], ids=["fast", "slow"])
def test_the_scoreboard_shows_the_gain_of_continuous_batching(
    clock: Clock, step: float, wrong: float, share: float
) -> None:
    """On any machine: whatever a step costs and a further request adds, and if the step was measured wrong.

    A step measured `wrong` times too short makes requests come that much faster, and the other way round.
    """
    full_step = step * (1 + share * (scoreboard.NUM_SEATS - 1))
    load = scoreboard.load_for(full_step / wrong, MODEL.config.vocab_size)
    schedulers = {"static": StaticScheduler, "continuous": Scheduler}
    runs = replay({name: engine_with(clock, kind, step, share) for name, kind in schedulers.items()}, load)
    static, continuous = (scoreboard.measure(1, name, run.metrics, 0) for name, run in runs.items())
    assert continuous.tokens_per_s > 1.3 * static.tokens_per_s
    assert continuous.ttft_ms < static.ttft_ms / 3


def test_a_full_step_is_measured_with_all_seats_taken(clock: Clock) -> None:
    engine = engine_with(clock, seats=scoreboard.NUM_SEATS)
    began = time.perf_counter()
    assert 0 < scoreboard.full_step_seconds(engine) < time.perf_counter() - began
    assert not engine.has_unfinished
    assert max(record.num_running for record in engine.step_records) == scoreboard.NUM_SEATS


def test_the_blocks_of_a_request_are_a_mean_over_steps(clock: Clock) -> None:
    run = replay({"one": engine_with(clock)}, [TimedRequest(0.0, TraceRequest((1, 2), 3))])["one"]
    assert scoreboard.blocks_held(run.records) == 1.0
