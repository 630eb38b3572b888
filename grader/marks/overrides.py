"""Marks that a person has set by hand: an append-only file of who gave what to whom, and why."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tinyllm.errors import TinyLLMError

FILE_NAME = "overrides.jsonl"


class OverrideError(TinyLLMError):
    """An override cannot be recorded or read. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Override:
    """One decision.

    Attributes:
        points: what the exercise earns now; None takes an earlier override back.
        reason: why, in words that the student will read.
        by: who decided; at: when (ISO 8601, UTC).
    """

    student: str
    day: str
    exercise: str
    points: float | None
    reason: str
    by: str = ""
    at: str = ""


Key = tuple[str, str, str]  # student, day, exercise


def record(out: Path, override: Override) -> Override:
    """Append an override to the output folder's file and return it with its author and time.

    Raises:
        OverrideError: it has no reason.
    """
    reason = " ".join(override.reason.split())
    if not reason:
        raise OverrideError("an override needs a reason, in words that the student will read: --reason '...'")
    by, at = override.by or user_name(), override.at or datetime.now(UTC).isoformat(timespec="seconds")
    done = Override(override.student, override.day, override.exercise, override.points, reason, by, at)
    line = json.dumps(asdict(done), ensure_ascii=False) + "\n"
    descriptor = os.open(out / FILE_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode("utf-8"))  # one write: whole, and behind what is there
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return done


def history(out: Path) -> list[Override]:
    """Every override ever made in an output folder, the oldest first.

    Raises:
        OverrideError: a line of the file is none.
    """
    path = out / FILE_NAME
    if not path.is_file():
        return []
    result = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            data = json.loads(line)
            result.append(Override(**data))
        except (ValueError, TypeError):
            raise OverrideError(f"{path}, line {number} is no override; move that line to another file") from None
    return result


def in_force(decisions: Sequence[Override]) -> Mapping[Key, Override]:
    """The last decision for each exercise of each student, without those that were taken back."""
    last = {(one.student, one.day, one.exercise): one for one in decisions}
    return {key: one for key, one in last.items() if one.points is not None}


def user_name() -> str:
    """Who runs this, as the system knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without an entry, as in containers
        return f"user {os.getuid()}"
