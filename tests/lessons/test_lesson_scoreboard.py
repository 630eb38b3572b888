"""The scoreboard: rows by day, kept across notebooks, and read back with care."""

from __future__ import annotations

import json

import pytest

from tinyllm import scoreboard
from tinyllm.engine.metrics import RequestMetrics
from tinyllm.errors import WorkspaceError

DENSE = scoreboard.Row(0, "dense", 100.0, 4_194_304.0, 3000.0)
PAGED = scoreboard.Row(1, "paged", 500.0, 230_000.0, 60.0)


def test_a_row_is_made_from_the_requests_times() -> None:
    first = RequestMetrics(arrival=10.0, token_times=[10.5, 11.0, 11.5])
    second = RequestMetrics(arrival=10.0, token_times=[11.5, 12.0])
    row = scoreboard.measure(1, "paged", [first, second], kv_bytes_per_request=1234.4)
    assert row == scoreboard.Row(1, "paged", tokens_per_s=2.5, kv_bytes_per_request=1234, ttft_ms=1000.0)


def test_the_board_is_empty_at_first_then_keeps_one_row_a_day() -> None:
    assert scoreboard.load().rows == ()
    scoreboard.record(PAGED)
    assert scoreboard.record(DENSE).rows == (DENSE, PAGED)
    faster = scoreboard.Row(1, "paged", 600.0, 230_000.0, 50.0)
    assert scoreboard.record(faster).rows == (DENSE, faster)
    assert scoreboard.load().rows == (DENSE, faster)


def test_it_shows_itself_as_text_and_as_a_table() -> None:
    board = scoreboard.Scoreboard((DENSE, scoreboard.Row(1, "<script>", 500.0, 230_000.0, 60.0)))
    lines = str(board).splitlines()
    assert lines[0].split() == ["Day", "Engine", "tokens/s", "KV", "bytes", "per", "request", "TTFT,", "ms"]
    assert lines[1].split() == ["0", "dense", "100", "4,194,304", "3,000"]
    html = board._repr_html_()
    assert html.count("<tr>") == 3
    assert "&lt;script&gt;" in html
    assert "<script>" not in html


@pytest.mark.parametrize("text", ["{", "[3]", '[{"day": 1}]', '{"day": 1}', "\x00"])
def test_a_damaged_file_is_named_with_what_to_do(text: str) -> None:
    scoreboard.path().parent.mkdir(parents=True)
    scoreboard.path().write_text(text)
    with pytest.raises(WorkspaceError, match=r"scoreboard.json cannot be read .*; delete it"):
        scoreboard.load()
    assert scoreboard.path().read_text() == text


def test_the_file_is_plain_json() -> None:
    scoreboard.record(DENSE)
    (row,) = json.loads(scoreboard.path().read_text())
    assert row["kv_bytes_per_request"] == 4_194_304


def test_the_workload_is_the_same_every_day() -> None:
    workload = scoreboard.workload(vocab_size=1000)
    assert workload == scoreboard.workload(vocab_size=1000)
    assert len(workload) == scoreboard.NUM_REQUESTS
    assert len({request.prompt_token_ids for request in workload}) == len(workload)
