"""What an engine tells of itself: records that stay few, listeners that get all, and numbers for other threads."""

from __future__ import annotations

import threading

import pytest
from support.models import make_engine, tiny_model

from tinyllm.engine.metrics import EngineStats, StepRecord
from tinyllm.engine.step_log import StepLog
from tinyllm.errors import EngineBusyError
from tinyllm.sampling_params import SamplingParams

MODEL = tiny_model()


def params(num_tokens: int, **options: object) -> SamplingParams:
    return SamplingParams(max_tokens=num_tokens, ignore_eos=True, **options)  # type: ignore[arg-type]


def test_old_records_are_forgotten_and_their_totals_are_not() -> None:
    engine = make_engine(MODEL, num_blocks=8, max_num_batched_tokens=8)
    engine.step_log = StepLog(max_records=3)
    with engine.step_log.keep_all() as records:
        for start in (1, 1, 40):  # the second finds the first in the prefix cache
            engine.add_request(list(range(start, start + 13)), params(9))
        while engine.has_unfinished:
            engine.step()
    assert len(records) > 3
    assert [record.step for record in records] == list(range(len(records)))
    assert engine.step_records == records[-3:]
    stats = engine.stats()
    assert stats.num_steps == len(records)
    assert stats.num_admitted_tokens == sum(record.num_admitted_tokens for record in records) > 39
    assert stats.num_preempted == sum(record.num_preempted for record in records) > 0
    assert stats.num_prefix_tokens_hit == sum(record.num_prefix_tokens_hit for record in records) > 0


def test_a_list_gets_the_steps_inside_its_block_only() -> None:
    engine = make_engine(MODEL)
    engine.add_request([1, 2, 3], params(6))
    engine.step()
    with engine.step_log.keep_all() as outer:
        engine.step()
        with engine.step_log.keep_all() as inner:
            engine.step()
        engine.step()
    engine.step()
    assert [record.step for record in outer] == [1, 2, 3]
    assert [record.step for record in inner] == [2]
    assert engine.step_log.listeners == []


def test_two_empty_lists_are_told_apart() -> None:
    """Lists that are equal are not the same list: each must be taken out itself."""
    log = StepLog()
    with log.keep_all() as outer:
        with log.keep_all():
            pass
        log.add(StepRecord(0, 0.0, 1.0, *[0] * 10))
    assert len(outer) == 1


def test_a_listener_meets_an_engine_in_order_and_its_error_costs_no_output() -> None:
    engine = make_engine(MODEL)

    def complain(record: StepRecord) -> None:
        if record.step == 1:
            with pytest.raises(EngineBusyError):
                engine.step()
            raise RuntimeError("I have seen enough")

    engine.step_log.listeners.append(complain)
    engine.add_request([1, 2], params(2), "a")
    engine.step()
    with pytest.raises(RuntimeError, match="seen enough"):
        engine.step()
    (output,) = engine.step()
    assert len(output.outputs[0].token_ids) == 2
    assert engine.stats().num_table_blocks == 0


def test_the_numbers_follow_the_requests() -> None:
    """A pool of 8 blocks of 4: 9 tokens take 3 blocks, two of which are full and stay in the prefix cache."""
    engine = make_engine(MODEL, num_blocks=8, max_num_seqs=1)
    nothing = EngineStats(0, 0, 8, 0, 0, 0, 0, 0, 0)
    assert engine.stats() == nothing
    engine.add_request(list(range(9)), params(3), "a")
    engine.add_request(list(range(8)), params(1), "b")
    assert engine.stats() == EngineStats(0, 2, 8, 0, 0, 0, 0, 0, 0)
    engine.step()
    assert engine.stats() == EngineStats(1, 1, 8, 3, 0, 1, 9, 0, 0)
    assert engine.stats().kv_use == 3 / 8
    engine.abort("a")
    assert engine.stats() == EngineStats(0, 1, 8, 0, 2, 1, 9, 0, 0)
    engine.step()
    assert engine.stats() == EngineStats(0, 0, 8, 0, 2, 2, 17, 4, 0)


def test_continuations_that_share_blocks_count_them_once() -> None:
    engine = make_engine(MODEL, enable_prefix_caching=False)
    engine.add_request(list(range(9)), params(5, n=3, temperature=1.0, seed=1))
    engine.step()
    stats = engine.stats()
    assert (stats.num_running, stats.num_table_blocks, stats.num_cached_blocks) == (3, 3, 0)


def test_another_thread_may_ask_while_the_engine_steps() -> None:
    engine = make_engine(MODEL, num_blocks=24)
    for number in range(24):
        engine.add_request([number, *range(10)], params(1 + number % 7))
    over = threading.Event()
    seen: list[EngineStats] = []
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            while not over.is_set():
                seen.append(engine.stats())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        while engine.has_unfinished:
            engine.step()
    finally:
        over.set()
        thread.join()
    assert not failed
    assert seen
    for stats in seen:
        assert 0 <= stats.num_running <= 24
        assert 0 <= stats.num_waiting <= 24
        assert 0 <= stats.num_table_blocks <= stats.num_blocks
        assert 0 <= stats.num_cached_blocks <= stats.num_blocks
    steps = [stats.num_steps for stats in seen]
    assert steps == sorted(steps)
