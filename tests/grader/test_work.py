"""The judge's side, against jails that lie, die and fall silent: the marks are made from observations alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from small_exercises import KNOWN, PURSE, RUNNING_SUM, Purse, result_of, running_sum

from grader.framework import Exercise, Outcome
from grader.hidden import check_hidden
from grader.pipeline import work
from grader.pipeline.work import Cell, Worked, WorkItem, judge_submission
from grader.running import LocalDriver
from grader.running.wire import WireError, encode, receive, send
from grader.sandbox.command import Isolation
from grader.sandbox.inside import drive
from grader.sandbox.limits import Limits
from grader.usage import UsageError

SEED = 7
CELLS = (Cell("setup", "", setup=True), Cell("own", "helper"), Cell("answer", "code", answers="running_sum"))

Jail = Callable[[socket.socket, dict[str, Any]], None]  # what happens in a jail once it has its job


class FakeSandbox:
    """Jails that are threads of this process: the first jail does the first thing, the last one all that come after."""

    level = "fake"
    ended_for = ""
    isolation = Isolation("", "", Limits(cell_seconds=0.5, grace_seconds=-4.5))

    def __init__(self, *jails: Jail) -> None:
        self.jails = list(jails)
        self.opened: list[str] = []

    @contextmanager
    def jail(self, build: str) -> Iterator[socket.socket]:
        self.opened.append(build)
        behave = self.jails.pop(0) if len(self.jails) > 1 else self.jails[0]
        ours, theirs = socket.socketpair()

        def live() -> None:
            with theirs:
                try:
                    behave(theirs, receive(theirs, 5))
                except WireError:
                    return

        thread = threading.Thread(target=live)
        thread.start()
        with ours:
            yield ours
        thread.join()


@pytest.fixture(autouse=True)
def known_exercises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "find_exercise", KNOWN.__getitem__)


def judged(*jails: Jail, name: str = "running_sum") -> tuple[Worked, FakeSandbox]:
    sandbox = FakeSandbox(*jails)
    item = WorkItem("ada", "day1", CELLS, {name: len(CELLS)}, SEED)
    return judge_submission(item, sandbox), sandbox  # type: ignore[arg-type]


def run_cells(connection: socket.socket, job: dict[str, Any], until: str = "") -> None:
    """Say that each cell has run, up to one."""
    for cell in job["cells"]:
        send(connection, {"cell": cell["id"]}, 5)
        if cell["id"] == until:
            return
        send(connection, {"ran": cell["id"], "printed": "", "error": ""}, 5)


def honest(exercise: Exercise, obj: Any) -> Jail:
    """A jail in which everything is as it should be."""

    def live(connection: socket.socket, job: dict[str, Any]) -> None:
        run_cells(connection, job)
        send(connection, {"ready": True}, 5)
        drive(connection, LocalDriver(exercise, obj))

    return live


def answers(*reports: Any) -> Jail:
    """A jail that gives these reports, whatever is asked, the last one again and again."""

    def live(connection: socket.socket, job: dict[str, Any]) -> None:
        run_cells(connection, job)
        send(connection, {"ready": True}, 5)
        given = list(reports)
        while receive(connection, 5):
            send(connection, {"report": given.pop(0) if len(given) > 1 else given[0]}, 5)

    return live


@pytest.mark.parametrize(
    ("exercise", "obj"), [(RUNNING_SUM, running_sum), (PURSE, Purse), (RUNNING_SUM, lambda values: values)]
)
def test_judge_and_home_find_the_same(exercise: Exercise, obj: Any) -> None:
    worked, _ = judged(honest(exercise, obj), name=exercise.name)
    home = result_of(exercise, obj, SEED)
    assert worked.results[exercise.name].properties == home.properties
    assert worked.results[exercise.name].seed is None
    assert worked.left_out == {}
    assert set(worked.cells) == {"own", "answer"}


@pytest.mark.parametrize(
    "report",
    [
        {"ending": "observed", "observations": "right"},
        {"ending": "observed", "observations": {"sums": True}},
        {"ending": "observed", "observations": {"sums": encode(torch.zeros(9))}},
        {"ending": "observed", "observations": {"sums": {"__tensor__": "float32", "shape": [9]}}},
        {"ending": "right"},
        {"ending": "observed", "message": 10**100},
        None,
        [[[]]],
    ],
    ids=str,
)
def test_lies_earn_nothing(report: Any) -> None:
    worked, _ = judged(answers(report))
    assert worked.results["running_sum"].points == 0


def test_an_answer_to_earlier_inputs_is_wrong_for_new_ones() -> None:
    first = {"ending": "observed", "observations": {"sums": encode(torch.tensor([2.0]))}}
    worked, _ = judged(answers(first))
    assert worked.results["running_sum"].properties[0].case_index == 1


def test_a_process_that_dies_loses_that_property_alone() -> None:
    def dies(connection: socket.socket, job: dict[str, Any]) -> None:
        run_cells(connection, job)
        send(connection, {"ready": True}, 5)
        receive(connection, 5)

    worked, sandbox = judged(dies, honest(RUNNING_SUM, running_sum))
    outcomes = [item.outcome for item in worked.results["running_sum"].properties]
    assert outcomes == [Outcome.CRASHED, Outcome.RIGHT, Outcome.NOT_CHECKED]
    assert "is lost" in worked.results["running_sum"].properties[0].message
    assert sandbox.opened == ["running_sum"] * 2


def test_a_process_that_falls_silent_times_out_and_the_next_property_counts() -> None:
    released = threading.Event()

    def silent(connection: socket.socket, job: dict[str, Any]) -> None:
        run_cells(connection, job)
        send(connection, {"ready": True}, 5)
        released.wait(2)

    worked, _ = judged(silent, honest(RUNNING_SUM, running_sum))
    released.set()
    outcomes = [item.outcome for item in worked.results["running_sum"].properties]
    assert outcomes[:2] == [Outcome.TIMED_OUT, Outcome.RIGHT]


@pytest.mark.parametrize(("silent", "outcome"), [(False, Outcome.CRASHED), (True, Outcome.TIMED_OUT)])
def test_a_cell_that_ends_or_blocks_python_is_left_out_and_costs_nothing(silent: bool, outcome: Outcome) -> None:
    released = threading.Event()

    def stops(connection: socket.socket, job: dict[str, Any]) -> None:
        run_cells(connection, job, until="own")
        if silent:
            released.wait(2)

    def goes_on(connection: socket.socket, job: dict[str, Any]) -> None:
        assert [cell["id"] for cell in job["cells"]] == ["setup", "answer"]
        honest(RUNNING_SUM, running_sum)(connection, job)

    worked, _ = judged(stops, goes_on)
    released.set()
    assert worked.left_out == {"own": outcome}
    assert worked.results["running_sum"].points == 1.5
    assert "left out" in worked.cells["own"].error


def test_an_answer_cell_that_ends_python_costs_its_exercise() -> None:
    worked, sandbox = judged(lambda connection, job: run_cells(connection, job, until="answer"))
    result = worked.results["running_sum"]
    assert result.points == 0
    assert result.properties[0].message.startswith("running_sum could not be checked. the answer's cell")
    assert len(sandbox.opened) == 1


def test_an_answer_that_is_none_is_told_with_its_error() -> None:
    def fails(connection: socket.socket, job: dict[str, Any]) -> None:
        for cell in job["cells"]:
            send(connection, {"cell": cell["id"]}, 5)
            error = "NameError: x" if cell["id"] == "answer" else ""
            send(connection, {"ran": cell["id"], "printed": 7, "error": error}, 5)
        send(connection, {"failed": "your notebook defines no running_sum"}, 5)

    worked, _ = judged(fails)
    assert worked.results["running_sum"].outcome is Outcome.CRASHED
    assert "NameError: x" in worked.results["running_sum"].properties[0].message
    assert worked.cells["own"].printed == ""  # what is no text is not kept


@pytest.mark.parametrize("message", [{"ready": True}, {"ran": "answer"}, {"report": {"ending": "right"}}, {}])
def test_messages_out_of_order_end_the_jail(message: dict[str, Any]) -> None:
    def floods(connection: socket.socket, job: dict[str, Any]) -> None:
        for _ in range(1000):
            send(connection, message, 5)

    worked, sandbox = judged(floods)
    assert worked.results["running_sum"].points == 0
    assert len(sandbox.opened) <= 3  # the setup, the own cell and the answer were each blamed once


def test_no_time_left_is_told_and_is_no_fault_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "SUBMISSION_SECONDS", -1.0)
    worked, sandbox = judged(honest(RUNNING_SUM, running_sum))
    assert worked.results["running_sum"].outcome is Outcome.TIMED_OUT
    assert "no time left" in worked.results["running_sum"].properties[0].message
    assert sandbox.opened == []


# ---------------------------------------------------------------- the hidden check of an instructor's notebook


def test_hidden_check_tells_points_and_no_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tinyllm.kv_cache.sizing import kv_bytes_per_token as reference

    def kv_bytes_per_token(config: Any, bytes_per_element: int) -> int:
        return reference(config, bytes_per_element)

    monkeypatch.setenv("GRADER_SECRET_SEED", "4711")
    points = check_hidden(kv_bytes_per_token)
    assert type(points) is float
    assert points == 2
    shown = capsys.readouterr()
    assert "kv_bytes_per_token: right, 2 of 2 points" in shown.out
    assert "4711" not in shown.out
    assert shown.err == ""


def test_the_courses_own_object_is_not_an_answer() -> None:
    from tinyllm.kv_cache.allocator import BlockAllocator

    with pytest.raises(UsageError, match="course's own"):
        check_hidden(BlockAllocator)
