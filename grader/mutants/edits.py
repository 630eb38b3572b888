"""Wrong solutions as edits of the solved cell: a few lines of TOML each, in `solutions/<day>/mutants/<Exercise>.toml`.

[mutant.RefusesTheLastBlock]
text = "You refuse a request for exactly as many blocks as are free."
find = "if num_blocks > len(self.free_ids):"
replace = "if num_blocks >= len(self.free_ids) and num_blocks > 0:"

`[variant.RefusesTheLastBlock.KeepsOneBlockBack]` makes the mistake of RefusesTheLastBlock in another way, and has its
`find` where it says none; `[unknown_bug.CountsTwice]` makes a mistake that no mutant makes. Both need no text. `edits`,
a list of `{ find, replace }`, stands in place of the one pair where several places change. A mutant that cannot be told
from another one says so: `alike = { OtherMutant = "the reason" }`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grader.usage import UsageError

EditKind = Literal["mutant", "variant", "unknown bug"]

EDIT_KEYS = ("find", "replace")
KEYS = ("text", "alike", "edits", *EDIT_KEYS)


@dataclass(frozen=True, slots=True)
class Edited:
    """A wrong solution that is an edit of the right one.

    Attributes:
        text: a mutant's diagnosis.
        of: the mutant whose mistake a variant makes.
        alike: mutants that behave as this one does, and are named with it.
        source: the whole cell.
    """

    name: str
    kind: EditKind
    text: str
    of: str
    alike: tuple[str, ...]
    source: str


def read_edits(path: Path, solution: str) -> list[Edited]:
    """Every edit of a file, made in the text of the solved cell.

    Raises:
        UsageError: an entry cannot be used; the message names the file and the entry.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is no TOML: {error}") from None
    _only(str(path), tables, ("mutant", "variant", "unknown_bug"))
    found: list[Edited] = []
    for name, entry in tables.get("mutant", {}).items():
        found.append(_edited(f"{path}, {name}", name, "mutant", entry, solution))
        if not found[-1].text:
            raise UsageError(f"{path}, {name} has no text to be its diagnosis")
    for mistake, variants in tables.get("variant", {}).items():
        place = {key: value for key, value in tables.get("mutant", {}).get(mistake, {}).items() if key == "find"}
        for name, entry in variants.items():
            if isinstance(entry, dict) and "edits" not in entry:
                entry = place | entry
            found.append(_edited(f"{path}, {mistake}.{name}", name, "variant", entry, solution, mistake))
    for name, entry in tables.get("unknown_bug", {}).items():
        found.append(_edited(f"{path}, {name}", name, "unknown bug", entry, solution))
    return found


def _edited(where: str, name: str, kind: EditKind, entry: Any, solution: str, of: str = "") -> Edited:
    if not isinstance(entry, dict):
        raise UsageError(f"{where} should be a table")
    _only(where, entry, KEYS)
    if ("edits" in entry) == any(key in entry for key in EDIT_KEYS):
        raise UsageError(f"{where} needs either find and replace, or edits")
    text, alike = entry.get("text", ""), entry.get("alike", {})
    if not isinstance(text, str):
        raise UsageError(f"{where}: text must be a text")
    if not isinstance(alike, dict) or not all(alike.values()):
        raise UsageError(f"{where}: alike names each mutant with a reason")
    source = solution
    for edit in entry.get("edits", [{key: entry[key] for key in EDIT_KEYS if key in entry}]):
        source = _with_edit(where, edit, source)
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    return Edited(name, kind, "\n".join(paragraphs), of, tuple(alike), source)


def _with_edit(where: str, edit: Mapping[str, Any], source: str) -> str:
    """The source with one edit made."""
    _only(where, edit, EDIT_KEYS)
    for key in EDIT_KEYS:
        if not isinstance(edit.get(key), str):
            raise UsageError(f"{where} has no {key}")
    count = source.count(edit["find"]) if edit["find"] else 0
    if count != 1:
        times = "not at all" if count == 0 else f"{count} times"
        raise UsageError(f"{where}: what it should find stands {times} in the solved cell: {edit['find']!r}")
    if edit["find"] == edit["replace"]:
        raise UsageError(f"{where} changes nothing")
    return source.replace(edit["find"], edit["replace"])


def _only(where: str, entry: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    unknown = [key for key in entry if key not in allowed]
    if unknown:
        raise UsageError(f"{where}: unknown key {unknown[0]!r}; allowed are {', '.join(allowed)}")
