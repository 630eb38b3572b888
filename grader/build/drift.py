"""Whether the notebooks in the repository are what the lessons give, and where they differ."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grader.build.course import days
from grader.build.notebook import notebook_text, release_notebook, release_path

MAX_DIFF_LINES = 20  # of one cell; the cell's name says the rest


def drift(root: Path | None = None) -> list[str]:
    """What is different between notebooks/ and a fresh build, one message for each cell. Empty when all is well."""
    messages = []
    expected = {release_path(day, root): notebook_text(release_notebook(day)) for day in days(root)}
    for path, text in expected.items():
        messages += [f"notebooks/{path.name}: {message}" for message in _compare(path, text)]
    folder = next(iter(expected)).parent
    for path in sorted(folder.glob("*.ipynb")):
        if path not in expected:
            messages.append(f"notebooks/{path.name}: no lesson makes this notebook; delete it")
    return messages


def _compare(path: Path, expected: str) -> Iterator[str]:
    if not path.is_file():
        yield "is missing"
        return
    actual = path.read_text(encoding="utf-8", errors="replace")
    if actual == expected:
        return
    try:
        old, new = json.loads(actual), json.loads(expected)
        old_cells = {cell["id"]: cell for cell in old["cells"]}
    except (ValueError, KeyError, TypeError):
        yield "is not a notebook of version 4.5"
        return
    found = list(_compare_cells(old_cells, {cell["id"]: cell for cell in new["cells"]}))
    yield from found
    if not found:
        yield "differs in the order of its cells, its metadata or its layout"


def _compare_cells(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*new, *old]):
        if name not in old:
            yield f"cell {name} is missing" + _diff("", _text(new[name]))
        elif name not in new:
            yield f"cell {name} should not be there" + _diff(_text(old[name]), "")
        elif _text(old[name]) != _text(new[name]):
            yield f"cell {name} has another text" + _diff(_text(old[name]), _text(new[name]))
        elif old[name] != new[name]:
            keys = sorted(k for k in {*old[name], *new[name]} if old[name].get(k) != new[name].get(k))
            yield f"cell {name} has other {', '.join(keys)}"


def _text(cell: Mapping[str, Any]) -> str:
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else str(source)


def _diff(old: str, new: str) -> str:
    """A unified diff, indented; short enough for a terminal."""
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "notebooks/", "solutions/", lineterm="", n=1))
    if len(lines) > MAX_DIFF_LINES:
        lines = [*lines[:MAX_DIFF_LINES], f"... {len(lines) - MAX_DIFF_LINES} lines more"]
    return "".join(f"\n    {line}" for line in lines)
