"""Mutations that change nothing that an exercise asks for, each with a reason: `solutions/<day>/equivalents/`.

One TOML file an exercise:

    [[equivalent]]
    target = "reference"  # or the alternate's name
    function = "allocate"
    before = "block_ids = [self.free_ids.popleft() for _ in range(num_blocks)]"
    after = "block_ids = [self.free_ids.pop() for _ in range(num_blocks)]"  # or a list of such
    reason = "which of the free blocks are handed out is a free choice"

`nth = 2` names the second place of a function where the same line stands.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from grader.framework import Exercise
from grader.mutants import day_folder
from grader.mutation.mutate import Mutation
from grader.usage import UsageError

Key = tuple[str, str, str, str, int]


@dataclass(frozen=True, slots=True)
class Equivalent:
    """An entry of the file."""

    target: str
    function: str
    before: str
    after: str | list[str]
    reason: str
    nth: int = 1

    @property
    def keys(self) -> list[Key]:
        """Of the mutations that it is about; see `Mutation.key`."""
        return [
            (self.target, self.function, self.before, after, self.nth)
            for after in ([self.after] if isinstance(self.after, str) else self.after)
        ]


def path_of(exercise: Exercise) -> Path:
    """The exercise's file, which may be missing."""
    return day_folder(exercise.name) / "equivalents" / f"{exercise.name}.toml"


def read(path: Path) -> dict[Key, str]:
    """The reason of each mutation in a file; empty where it is missing.

    Raises:
        UsageError: it is no TOML, an entry lacks something or has too much, or a mutation stands in it twice.
    """
    if not path.is_file():
        return {}
    reasons: dict[Key, str] = {}
    for entry in entries(path):
        for key in entry.keys:
            if key in reasons:
                raise UsageError(f"{path}: this stands in it twice: {words(key)}")
            reasons[key] = entry.reason
    return reasons


def entries(path: Path) -> Iterator[Equivalent]:
    """The entries of a file."""
    try:
        found: list[dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["equivalent"]
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise UsageError(f"{path} should be a list of [[equivalent]]: {error}") from None
    known = {field.name for field in fields(Equivalent)}
    for number, entry in enumerate(found, 1):
        wrong = [*(known - {"nth"} - set(entry)), *(set(entry) - known)]
        if wrong or not str(entry["reason"]).strip():
            raise UsageError(f"{path}: entry {number} needs {', '.join(sorted(known))}; look at {wrong or 'reason'}")
        yield Equivalent(**entry)


def words(key: Key | Mutation) -> str:
    """A mutation as lines of a diff, under its place."""
    target, function, before, after, nth = key.key if isinstance(key, Mutation) else key
    place = f"{target}, in {function}" + (f", place {nth}" if nth > 1 else "")
    if isinstance(key, Mutation):
        place += f", line {key.line} of the cell"
    lines = [*(f"- {line}" for line in before.splitlines()), *(f"+ {line}" for line in after.splitlines())]
    return "\n".join([place, *(f"    {line}" for line in lines)])
