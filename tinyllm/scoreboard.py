"""The scoreboard: one row a day, all measured on the same small load, kept in the learner's work folder.

Times are this machine's, and so is the load: requests come as fast as a full batch of the course's engine could just
serve them. What counts is how a row compares with the row of the day before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from statistics import mean, median
from typing import Any

from tinyllm.engine.engine import LLMEngine
from tinyllm.engine.metrics import RequestMetrics, StepRecord
from tinyllm.errors import WorkspaceError
from tinyllm.files import write_text
from tinyllm.paths import work_dir
from tinyllm.replay import TimedRequest
from tinyllm.sampling_params import SamplingParams
from tinyllm.traces import TraceRequest, make_trace, poisson_arrivals

NUM_REQUESTS = 24
#: Most requests at once in the batched rows.
NUM_SEATS = 8
HEADINGS = ("Day", "Engine", "tokens/s", "KV bytes per request", "TTFT, ms")


def workload(vocab_size: int) -> list[TraceRequest]:
    """The requests that every day's row is measured on: 24 short ones, some outputs much longer than most."""
    return make_trace("alpaca", NUM_REQUESTS, vocab_size=vocab_size, seed=50)


def full_step_seconds(engine: LLMEngine) -> float:
    """The median time of a step in which `NUM_SEATS` requests decode, measured on an engine that has nothing to do."""
    for number in range(NUM_SEATS):
        engine.add_request([number] * 16, SamplingParams(max_tokens=24, ignore_eos=True))
    with engine.step_log.keep_all() as records:
        while engine.has_unfinished:
            engine.step()
    decodes = [record for record in records if record.num_decode_tokens == NUM_SEATS]
    return median(record.end - record.start for record in decodes)


def load_for(step_seconds: float, vocab_size: int) -> list[TimedRequest]:
    """The workload, coming at random as fast as full steps of `step_seconds` could just serve it (Poisson)."""
    requests = workload(vocab_size)
    tokens = mean(request.output_len for request in requests)
    arrivals = poisson_arrivals(len(requests), NUM_SEATS / (tokens * step_seconds), seed=7)
    return [TimedRequest(*item) for item in zip(arrivals, requests, strict=True)]


def blocks_held(records: Sequence[StepRecord]) -> float:
    """The blocks that a running request holds, mean over requests and steps."""
    return mean(record.num_table_blocks / record.num_running for record in records if record.num_running)


@dataclass(frozen=True, slots=True)
class Row:
    """What an engine did on the load.

    Attributes:
        day: the course's day; a later measurement of the same day replaces the row.
        engine: the engine in a few words.
        tokens_per_s: output tokens over the time from the first arrival to the last token.
        kv_bytes_per_request: KV memory that a running request holds, mean.
        ttft_ms: time to first token, mean over the requests; waiting for the engine counts.
    """

    day: int
    engine: str
    tokens_per_s: float
    kv_bytes_per_request: float
    ttft_ms: float


def measure(day: int, engine: str, metrics: Sequence[RequestMetrics], kv_bytes_per_request: float) -> Row:
    """Make a row from the times of the load's requests."""
    start = min(item.arrival for item in metrics)
    end = max(item.token_times[-1] for item in metrics)
    tokens = sum(len(item.token_times) for item in metrics)
    ttft = 1000 * mean(item.ttft for item in metrics)
    return Row(day, engine, round(tokens / (end - start), 1), round(kv_bytes_per_request), round(ttft, 1))


@dataclass(frozen=True, slots=True)
class Scoreboard:
    """The rows by day; shows itself as a table in a notebook and when printed."""

    rows: tuple[Row, ...]

    def cells(self) -> list[tuple[str, ...]]:
        """The table's body as text."""
        return [
            (str(r.day), r.engine, f"{r.tokens_per_s:,.0f}", f"{r.kv_bytes_per_request:,.0f}", f"{r.ttft_ms:,.0f}")
            for r in self.rows
        ]

    def __str__(self) -> str:
        table = [HEADINGS, *self.cells()]
        widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
        lines = []
        for row in table:
            texts = [t.ljust(w) if i < 2 else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True))]
            lines.append("  ".join(texts).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{escape(text)}</th>' for text in HEADINGS)
        body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in self.cells())
        return f"<table><caption>Scoreboard</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def path() -> Path:
    """Where the scoreboard is kept."""
    return work_dir() / "scoreboard.json"


def load() -> Scoreboard:
    """The scoreboard so far; empty before the first row.

    Raises:
        WorkspaceError: the file is there and cannot be read.
    """
    if not path().is_file():
        return Scoreboard(())
    try:
        rows = [read_row(item) for item in json.loads(path().read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WorkspaceError(
            f"{path()} cannot be read ({type(error).__name__}: {error}); delete it and run the days' last cells again"
        ) from None
    return Scoreboard(tuple(sorted(rows, key=lambda row: row.day)))


def read_row(item: dict[str, Any]) -> Row:
    """A row from its JSON; any exception means that it is none."""
    return Row(
        day=int(item["day"]),
        engine=str(item["engine"]),
        tokens_per_s=float(item["tokens_per_s"]),
        kv_bytes_per_request=float(item["kv_bytes_per_request"]),
        ttft_ms=float(item["ttft_ms"]),
    )


def record(row: Row) -> Scoreboard:
    """Keep a row, in place of an older one of the same day, and return the scoreboard."""
    others = [other for other in load().rows if other.day != row.day]
    board = Scoreboard(tuple(sorted([*others, row], key=lambda other: other.day)))
    write_text(path(), json.dumps([asdict(item) for item in board.rows], indent=1) + "\n")
    return board
