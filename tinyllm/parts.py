"""Which parts of the engine are the learner's and which the reference.

part_table.py lists them. `use(obj)` records the source of the learner's own object; the course's checks stamp that
source as right or not. Engines ask `resolve` once, when they are made; no module is ever patched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from tinyllm.boundary import watched
from tinyllm.errors import PartError, UnknownNameError
from tinyllm.files import write_text
from tinyllm.names import did_you_mean
from tinyllm.part_table import PARTS, Part
from tinyllm.paths import work_dir
from tinyllm.recorded import name_of, run_alone, source_hash, source_of


@dataclass(frozen=True, slots=True)
class PartStatus:
    """Whose code a part is: `owner` is "yours" or "reference", `reason` says why."""

    name: str
    day: int
    owner: str
    reason: str


def all_parts() -> dict[str, Part]:
    """Every part by name, in the order in which the course builds them."""
    return {item.name: item for item in PARTS}


def find_part(name: str) -> Part:
    """The part called `name`.

    Raises:
        UnknownNameError: there is none; the message lists those that there are.
    """
    parts = all_parts()
    if name not in parts:
        listed = ", ".join(parts)
        raise UnknownNameError(f"no part is called {name!r}. The parts are: {listed}{did_you_mean(name, parts)}")
    return parts[name]


def references() -> dict[str, Any]:
    """Every part's reference by name."""
    return {name: item.reference for name, item in all_parts().items()}


def is_reference(obj: Any) -> bool:
    """Whether an object is the course's own part, and not one that a learner wrote."""
    return any(obj is item.reference for item in all_parts().values())


# ---------------------------------------------------------------- recording


def use(obj: Any) -> None:
    """Record your own part, so that `LLM(parts="mine")` and `tinyllm status` know it.

    The whole cell is kept: helpers and imports that the part needs belong into the same cell.

    Raises:
        UnknownNameError: no part has that name.
        WorkspaceError: its source cannot be read, or the record cannot be written.
    """
    name = find_part(name_of(obj, all_parts())).name
    if is_reference(obj):
        print(f"{name}: this is the reference itself; nothing to record.")
        return
    source = source_of(obj, name)
    write_text(source_file(name), source)
    try:
        defined_alone(name, source)
        reason = own_reason(name)[1]
    except PartError as error:
        reason = str(error)
    print(f"{name}: recorded. {reason[0].upper()}{reason[1:]}.")


def defined_alone(name: str, source: str) -> Any:
    """What a cell defines when it runs alone, beside the other parts' references, and without what it prints.

    Raises:
        PartError: it does not run alone, or uses names that only other cells define.
    """
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            return run_alone(source, name, references(), strict=True)
    except PartError:
        raise
    except Exception as error:  # whatever the learner's cell does
        raise PartError(f"your {name}: {type(error).__name__}: {error}") from error


def stamp(name: str, source: str, right: bool, reason: str = "") -> None:
    """Record what a check said about this very source.

    Args:
        right: what the check found.
        reason: in words for `status`: why a right source cannot be used, or why another one did not simply fail.
    """
    record = {"source_hash": source_hash(source), "right": right, "reason": reason}
    write_text(stamp_file(name), json.dumps(record, indent=1) + "\n")


def recorded_source(name: str) -> str | None:
    """The learner's recorded source of a part; None if there is none."""
    path = source_file(name)
    return path.read_text(encoding="utf-8") if path.is_file() else None


def forget(name: str) -> None:
    """Take the recorded source of a part back, and what its check said."""
    source_file(name).unlink(missing_ok=True)
    stamp_file(name).unlink(missing_ok=True)


def source_file(name: str) -> Path:
    """Where the learner's source of a part is kept."""
    return work_dir() / "parts" / f"{name}.py"


def stamp_file(name: str) -> Path:
    """Where the result of the last check of a part is kept."""
    return work_dir() / "parts" / f"{name}.stamp.json"


def own_reason(name: str) -> tuple[bool, str]:
    """Whether the learner's own source of a part may be used, and why or why not."""
    if not source_file(name).is_file():
        return False, "no answer recorded"
    checked = last_check(name)
    if checked is None:
        return False, "recorded but not checked yet"
    checked_hash, right, reason = checked
    if checked_hash != source_hash(source_file(name).read_text(encoding="utf-8")):
        return False, "changed since its last check"
    if right and not reason:
        return True, "checked and right"
    return False, reason or "its last check failed"


def last_check(name: str) -> tuple[str, bool, str] | None:
    """What the last check of a part was of (the hash of its source), whether it was right, and its reason in words."""
    try:
        record = json.loads(stamp_file(name).read_text(encoding="utf-8"))
        return str(record["source_hash"]), bool(record["right"]), str(record.get("reason", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def checked_right(name: str) -> bool:
    """Whether the learner's last check of a part was right, whatever was recorded since."""
    checked = last_check(name)
    return checked is not None and checked[1]


def status() -> list[PartStatus]:
    """Whose code each part would be with `parts="mine"`."""
    rows = []
    for item in all_parts().values():
        mine, reason = own_reason(item.name)
        rows.append(PartStatus(item.name, item.day, "yours" if mine else "reference", reason))
    return rows


# ---------------------------------------------------------------- resolving


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects an engine is built from. `parts["BlockAllocator"]` is a class, the learner's or the reference's."""

    chosen: Mapping[str, Any]
    mine: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Any:
        return self.chosen[name]

    def __str__(self) -> str:
        others = [name for name in self.chosen if name not in self.mine]
        return f"Your parts: {', '.join(self.mine) or 'none'}. Reference: {', '.join(others) or 'none'}."


def resolve(parts: str | Mapping[str, Any] = "reference") -> Parts:
    """Choose the parts of an engine.

    Args:
        parts: "reference"; "mine", which takes each recorded part whose stamp is right and prints the choice in
            one line; or a mapping of names to objects to use in place of the reference.

    Raises:
        UnknownNameError: an unknown choice or part name.
        PartError: a recorded part cannot be loaded.
    """
    chosen = references()
    if isinstance(parts, Mapping):
        for name in parts:
            find_part(name)
        return Parts({**chosen, **{name: watched(name, part) for name, part in parts.items()}}, tuple(parts))
    if parts == "reference":
        return Parts(chosen)
    if parts != "mine":
        raise UnknownNameError(f'parts is {parts!r}; give "reference", "mine" or a mapping of part names to objects')
    mine = tuple(row.name for row in status() if row.owner == "yours")
    for name in mine:  # in the course's order: a part may use those before it
        chosen[name] = load(name, chosen)
    resolved = Parts({**chosen, **{name: watched(name, chosen[name]) for name in mine}}, mine)
    print(resolved)
    return resolved


def load(name: str, scope: Mapping[str, Any]) -> Any:
    """Run the learner's recorded source alone and return the part that it defines.

    Args:
        scope: the other parts, which the cell may use.

    Raises:
        PartError: the source does not run alone, or does not define the part.
    """
    return run_alone(source_file(name).read_text(encoding="utf-8"), name, scope)
