"""The record of one graded submission: all that tables, reports and feedback pages are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from grader.framework import CheckResult
from tinyllm.files import write_text


class Status(StrEnum):
    """How a submission came through grading."""

    GRADED = "graded"
    REPAIRED = "repaired"  # graded after cells were put back or found elsewhere; the feedback says which
    TIMED_OUT = "timed out"  # a cell took too long and was left out
    CRASHED = "crashed"  # a cell ended Python and was left out
    REFUSED = "refused"  # the file could not be read
    MISSING = "missing"  # nothing was handed in
    FAILED = "failed"  # grading itself failed: no marks, a person must look; --resume grades it again


@dataclass(frozen=True, slots=True)
class CellRun:
    """What a cell that came from the student did when it ran.

    Attributes:
        id: of the cell in the rebuilt notebook; an answer cell has its exercise's name.
        printed: what it printed, cut.
        error: `ErrorName: message` where it ended with one, or why it was left out.
    """

    id: str
    printed: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One student's marks for one day, and how they came about. It holds no seed.

    Attributes:
        points: by exercise, (earned, most possible); every exercise of the day is there.
        results: the judge's results by exercise, with hidden inputs (`without_inputs` removes them); empty where
            nothing was run.
        notes: for the student, what was repaired or why nothing was graded.
        answers: the source of each answer that differs from the stub, by exercise.
        cells: the student's cells that ran, each once, in the notebook's order.
        sandbox: the level of the sandbox that it ran in: "bubblewrap", "unshare" or "none"; empty where nothing ran.
        sha256: of the file as it was handed in; empty where there was none.
        handed_in: when, as ISO 8601 with time zone, where the submission says so; else empty.
        seconds: how long grading took; the only thing in which two gradings with one seed differ.
    """

    student: str
    day: str
    status: Status
    points: dict[str, tuple[float, float]]
    results: dict[str, CheckResult] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    answers: dict[str, str] = field(default_factory=dict)
    cells: tuple[CellRun, ...] = ()
    sandbox: str = ""
    sha256: str = ""
    handed_in: str = ""
    seconds: float = field(default=0.0, compare=False)

    @property
    def total(self) -> float:
        """Points earned."""
        return sum(earned for earned, _ in self.points.values())

    @property
    def max_total(self) -> float:
        """Points of a perfect submission."""
        return sum(possible for _, possible in self.points.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"schema": 1, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The record that `to_dict` wrote."""
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        return cls(
            **{
                **known,
                "status": Status(data["status"]),
                "points": {name: (float(earned), float(most)) for name, (earned, most) in data["points"].items()},
                "results": {name: CheckResult.from_dict(item) for name, item in data["results"].items()},
                "notes": tuple(data["notes"]),
                "cells": tuple(CellRun(**item) for item in data["cells"]),
            }
        )


def record_path(out: Path, student: str, day: str) -> Path:
    """Where the record of a submission is kept."""
    return out / "results" / student / f"{day}.json"


def write_record(out: Path, record: Record) -> None:
    """Write a record to its place, whole or not at all."""
    text = json.dumps(record.to_dict(), indent=1, ensure_ascii=False) + "\n"
    write_text(record_path(out, record.student, record.day), text)


def read_record(out: Path, student: str, day: str) -> Record:
    """The record of a submission.

    Raises:
        FileNotFoundError: it was not graded.
    """
    return Record.from_dict(json.loads(record_path(out, student, day).read_text(encoding="utf-8")))


def read_records(out: Path) -> list[Record]:
    """Every record of an output folder, by day and student."""
    found = [Record.from_dict(json.loads(path.read_text("utf-8"))) for path in (out / "results").glob("*/*.json")]
    return sorted(found, key=lambda record: (record.day, record.student))
