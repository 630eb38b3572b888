"""The journal of a grading: one line for each step of each submission, only ever appended to.

A grading that was cut off anywhere goes on from it. Every step that has its line is done, and each can be done again
without harm, so that the one that was under way is simply repeated.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Key = tuple[str, str]  # student, day


class State(StrEnum):
    """The steps of a submission, in order."""

    TAKEN = "taken"  # copied as it was handed in
    NORMALISED = "normalised"  # rebuilt from the release
    RUNNING = "running"  # given to a worker
    JUDGED = "judged"  # its record is written
    MERGED = "merged"  # its marks are in the gradebook


ORDER = list(State)


class Journal:
    """The file, and what it says so far.

    Attributes:
        lines: the last line of each state, by student and day. A submission that is taken again starts anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Key, dict[State, dict[str, Any]]] = {}

    def __enter__(self) -> Self:
        """Read what is there. A last line that was cut off in the middle never happened."""
        text = self.path.read_bytes() if self.path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        for line in whole.splitlines():
            entry = json.loads(line)
            self.note((entry["student"], entry["day"]), State(entry["state"]), entry)
        self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(self.file, len(whole))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self.file)

    def note(self, key: Key, state: State, entry: dict[str, Any]) -> None:
        """Remember a line; the states after it have to be reached again."""
        known = self.lines.setdefault(key, {})
        for later in ORDER[ORDER.index(state) :]:
            known.pop(later, None)
        known[state] = entry

    def append(self, key: Key, state: State, **facts: Any) -> None:
        """Write that a submission has reached a state."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"student": key[0], "day": key[1], "state": state, **facts, "at": now}
        data = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        if os.write(self.file, data) != len(data):
            raise OSError(f"{self.path}: the disk is full")
        self.note(key, state, entry)

    def has(self, key: Key, state: State) -> bool:
        """Whether a submission has reached a state."""
        return state in self.lines.get(key, {})

    def fact(self, key: Key, state: State, name: str, default: Any = None) -> Any:
        """A fact of the line of a state."""
        return self.lines.get(key, {}).get(state, {}).get(name, default)
