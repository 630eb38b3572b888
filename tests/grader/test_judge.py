"""The judge keeps the marks, whatever the process at the other end does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_exercises import KNOWN, PURSE, RUNNING_SUM, Purse, result_of, running_sum

from grader import sitting
from grader.hidden import JudgeUnreachable, check_hidden, converse, judged_elsewhere
from grader.judge import JudgeError, JudgeProcess
from grader.results import CheckResult, Outcome
from grader.sitting import Judge
from grader.usage import UsageError
from grader.wire import decode, encode, receive, send

SEED = 7


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(SEED, tmp_path / "scores.json", KNOWN)


def sit(judge: Judge, driver: Callable[[socket.socket], Any]) -> Any:
    """Let the judge hear a driver that runs in a thread of this process; the driver's value."""
    ours, theirs = socket.socketpair()
    values: list[Any] = []

    def drive() -> None:
        with theirs:
            values.append(driver(theirs))

    thread = threading.Thread(target=drive)
    thread.start()
    with ours:
        judge.hear(ours)
    thread.join()
    return values[0]


def honest(exercise: Any, obj: Any) -> Callable[[socket.socket], CheckResult]:
    """A driver that runs an object and says what it saw, over a connection that is there already."""
    return lambda connection: converse(connection, exercise, obj)


def saved(judge: Judge) -> dict[str, CheckResult]:
    data = json.loads(judge.out.read_text(encoding="utf-8"))
    return {name: CheckResult.from_dict(item) for name, item in data["results"].items()}


def test_judge_and_home_find_the_same(judge: Judge) -> None:
    for exercise, obj in ((RUNNING_SUM, running_sum), (PURSE, Purse), (RUNNING_SUM, lambda values: values)):
        judge.results.clear()
        told = sit(judge, honest(exercise, obj))
        assert saved(judge)[exercise.name] == result_of(exercise, obj, SEED)
        assert told == saved(judge)[exercise.name].without_inputs()


def test_students_are_told_neither_seed_nor_inputs(judge: Judge) -> None:
    told = sit(judge, honest(RUNNING_SUM, lambda values: values))
    assert told.seed is None
    assert not any(item.case_text for item in told.properties)
    assert any(item.case_text for item in saved(judge)["running_sum"].properties)
    assert "[1.0, 2.0, 4.0]" not in str(told)


def test_first_attempt_counts(judge: Judge) -> None:
    sit(judge, honest(RUNNING_SUM, lambda values: values))
    second = sit(judge, honest(RUNNING_SUM, running_sum))
    assert second.outcome is Outcome.WRONG
    assert saved(judge)["running_sum"].outcome is Outcome.WRONG


def test_unknown_exercise_is_refused_and_leaves_nothing(judge: Judge) -> None:
    def driver(connection: socket.socket) -> dict[str, Any]:
        send(connection, {"exercise": "running_product"}, 5)
        return receive(connection, 5)

    assert "error" in sit(judge, driver)
    assert saved(judge) == {}


def test_driver_that_dies_loses_only_what_was_not_seen(judge: Judge) -> None:
    def driver(connection: socket.socket) -> None:
        send(connection, {"exercise": "running_sum"}, 5)
        for _ in range(3):  # the first property's cases
            case = decode(receive(connection, 5)["case"])
            report = {"ending": "observed", "observations": encode({"sums": case["values"].cumsum(0)})}
            send(connection, {"report": report}, 5)
        receive(connection, 5)

    sit(judge, driver)
    result = saved(judge)["running_sum"]
    assert [item.outcome for item in result.properties][:2] == [Outcome.RIGHT, Outcome.CRASHED]
    assert result.points == 1
    assert sit(judge, honest(PURSE, Purse))
    assert saved(judge)["Purse"]


def test_silent_driver_times_out(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitting, "GRACE_SECONDS", -4.9)
    released = threading.Event()

    def driver(connection: socket.socket) -> None:
        send(connection, {"exercise": "running_sum"}, 5)
        released.wait(30)

    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=driver, args=(theirs,))
    thread.start()
    with ours, theirs:
        judge.hear(ours)
        released.set()
        thread.join()
    assert saved(judge)["running_sum"].outcome is Outcome.TIMED_OUT


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
def test_lies_earn_nothing(judge: Judge, report: Any) -> None:
    def driver(connection: socket.socket) -> dict[str, Any]:
        send(connection, {"exercise": "running_sum"}, 5)
        while "case" in (message := receive(connection, 5)):
            send(connection, {"report": report}, 5)
        return message

    message = sit(judge, driver)
    assert message["result"]["exercise"] == "running_sum"
    assert saved(judge)["running_sum"].points == 0


def test_no_hello_leaves_the_judge_free(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitting, "HELLO_SECONDS", 0.05)
    sit(judge, lambda connection: None)
    sit(judge, lambda connection: connection.sendall(b"GET / HTTP/1.1\r\n\r\n"))
    assert sit(judge, honest(PURSE, Purse))


def test_fault_of_the_course_is_no_mark(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object, rng: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(PURSE.properties[1]), "cases", fails)

    def driver(connection: socket.socket) -> None:
        with pytest.raises(JudgeUnreachable):
            honest(PURSE, Purse)(connection)

    sit(judge, driver)
    assert saved(judge) == {}
    assert "ZeroDivisionError" in json.loads(judge.out.read_text(encoding="utf-8"))["errors"]["Purse"]


# ---------------------------------------------------------------- as a process

SUBMISSION = """
import os
from grader.hidden import check_hidden
from tinyllm.kv_cache.sizing import kv_bytes_per_token as reference, reservation_waste as other_reference

def reservation_waste(requests, num_slots, region, paged):
    return other_reference(requests, num_slots, region, paged)

def kv_bytes_per_token(config, bytes_per_element):
    {body}

print(check_hidden(reservation_waste))
print(check_hidden(kv_bytes_per_token))
"""


def submit(process: JudgeProcess, body: str) -> subprocess.CompletedProcess[str]:
    code = SUBMISSION.format(body=textwrap.indent(body, "    ").strip())
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **process.env, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_process_judges_another_process(tmp_path: Path) -> None:
    with JudgeProcess(SEED, tmp_path) as process:
        done = submit(process, "print('noise'); return reference(config, bytes_per_element)")
    results = process.results()
    assert done.stdout.splitlines()[-1] == "2.0"
    assert done.stderr == ""
    assert {name: result.points for name, result in results.items()} == {
        "reservation_waste": 2,
        "kv_bytes_per_token": 2,
    }
    assert str(SEED) not in done.stdout.replace("seed", "")
    assert process.process.returncode == 0


def test_process_that_exits_costs_its_own_exercise(tmp_path: Path) -> None:
    with JudgeProcess(SEED, tmp_path) as process:
        done = submit(process, "os._exit(0)")
    assert done.stdout.splitlines()[-1] == "2.0"  # the one before
    results = process.results()
    assert results["reservation_waste"].points == 2
    assert results["kv_bytes_per_token"].points == 0
    assert results["kv_bytes_per_token"].outcome is Outcome.CRASHED
    assert "lost" in results["kv_bytes_per_token"].properties[0].message


def test_nothing_handed_in_is_no_result_and_no_fault(tmp_path: Path) -> None:
    with JudgeProcess(SEED, tmp_path / ("deep" * 20)) as process:
        pass
    assert process.results() == {}


def test_judge_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(JudgeError, match="did not start"), JudgeProcess(SEED, tmp_path):
        pass


def test_hidden_check_without_a_judge(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from tinyllm.kv_cache.sizing import kv_bytes_per_token as reference

    def kv_bytes_per_token(config: Any, bytes_per_element: int) -> int:
        return reference(config, bytes_per_element)

    monkeypatch.delenv("GRADER_JUDGE", raising=False)
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


def test_judge_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(JudgeUnreachable, match="does not answer"):
        judged_elsewhere(str(tmp_path / "no.sock"), RUNNING_SUM, running_sum)
