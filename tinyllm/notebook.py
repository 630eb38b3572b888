"""A learner's notebook as data: find its answers, reset one, carry them into a new release. No files here."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell

from tinyllm.errors import UnknownNameError, WorkspaceError
from tinyllm.names import did_you_mean

Cell = Any  # nbformat's NotebookNode, a dict with attribute access
Notebook = Any


def read(path: Path) -> Notebook:
    """Read a notebook of any version that nbformat knows, as version 4.

    Raises:
        WorkspaceError: the file is missing, or is no valid notebook; the message names the file.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about cell ids, which are mended here
            notebook = with_unique_ids(nbformat.reads(path.read_text(encoding="utf-8"), as_version=4))
            nbformat.validate(notebook)
    except FileNotFoundError:
        raise WorkspaceError(f"{path} is missing") from None
    except Exception as error:  # nbformat lets KeyError, AttributeError and more out on damaged files
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise WorkspaceError(f"{path} is not a readable notebook: {reason}") from None
    return notebook


def with_unique_ids(notebook: Notebook) -> Notebook:
    """A copy of the notebook in which no cell id is missing or doubled."""
    with warnings.catch_warnings(action="ignore"):  # about what is mended here
        return nbformat.validator.normalize(notebook)[1]


def write(notebook: Notebook) -> str:
    """The notebook as the text of an .ipynb file."""
    return nbformat.writes(notebook, version=4) + "\n"


def grading(cell: Cell) -> Mapping[str, Any]:
    """The cell's nbgrader metadata, or an empty mapping where there is none that makes sense."""
    metadata = cell.metadata.get("nbgrader")
    return metadata if isinstance(metadata, Mapping) and isinstance(metadata.get("grade_id"), str) else {}


def is_answer(cell: Cell) -> bool:
    """Whether the learner's answer to an exercise belongs in this cell."""
    return cell.cell_type == "code" and grading(cell).get("solution") is True


def key(cell: Cell) -> str:
    """What tells a cell apart in every release: its grade id, or else its cell id."""
    return str(grading(cell).get("grade_id") or cell.id)


def answers(notebook: Notebook) -> dict[str, str]:
    """Exercise name -> the source of its answer cell (the first, where a copied cell repeats the name)."""
    found: dict[str, str] = {}
    for cell in notebook.cells:
        if is_answer(cell):
            found.setdefault(key(cell), cell.source)
    return found


def same(first: str, second: str) -> bool:
    """Whether two sources are equal but for blanks at line ends and around the whole."""
    return [line.rstrip() for line in first.strip().splitlines()] == [
        line.rstrip() for line in second.strip().splitlines()
    ]


def as_plain(cell: Cell) -> Cell:
    """A copy of the cell that is no longer part of the grading."""
    plain = deepcopy(cell)
    plain.metadata.pop("nbgrader", None)
    return plain


def reset(mine: Notebook, release: Notebook, exercise: str) -> tuple[Notebook, list[str]]:
    """Put one exercise of the learner's notebook back to its stub.

    A deleted cell comes back at its place; a copy of it becomes a plain cell.

    Returns:
        The new notebook, and the answers that left its answer cell (none: it was at its stub).

    Raises:
        UnknownNameError: the release has no such exercise; the message lists those it has.
    """
    stubs = answers(release)
    if exercise not in stubs:
        listed = ", ".join(stubs) or "none"
        raise UnknownNameError(
            f"there is no exercise {exercise!r} in this notebook. It has: {listed}{did_you_mean(exercise, stubs)}"
        )
    stub = new_code_cell(stubs[exercise])
    order = [key(cell) for cell in release.cells]
    original = release.cells[order.index(exercise)]
    stub.id, stub.metadata = original.id, deepcopy(original.metadata)

    result, old, placed = deepcopy(mine), [], False
    cells = []
    for cell in result.cells:
        if is_answer(cell) and key(cell) == exercise:
            if not same(cell.source, stub.source):
                old.append(cell.source)
            cells.append(as_plain(cell) if placed else stub)
            placed = True
        else:
            cells.append(cell)
    if not placed:
        before = set(order[: order.index(exercise)])
        place = max((i + 1 for i, cell in enumerate(cells) if key(cell) in before), default=0)
        cells.insert(place, stub)
    result.cells = cells
    return result, old


@dataclass(frozen=True, slots=True)
class Merge:
    """A learner's notebook brought to a new release.

    Attributes:
        notebook: the release with the learner's answers, edits and own cells in it.
        carried: exercises whose answer was carried over.
        own_cells: cells of the learner's own that were carried over, and edited cells that are gone.
        replaced: course cells that both sides had changed; the release's text was taken.
    """

    notebook: Notebook
    carried: tuple[str, ...]
    own_cells: int
    replaced: tuple[str, ...]


def merge(mine: Notebook, base: Notebook | None, release: Notebook) -> Merge:
    """Carry a learner's work into a new release: a three-way merge, cell by cell.

    An answer always wins over the release's stub. The learner's edit of another course cell wins where the
    release did not change that cell. Checks (locked cells) are the release's. A cell that no release knows is
    the learner's own and stays behind the cell it followed.

    Args:
        mine: the learner's notebook.
        base: the release that it was started from; None where that is not known.
        release: the new release.
    """
    known = {key(cell): cell for cell in (base.cells if base is not None else [])}
    wanted = {key(cell) for cell in release.cells}
    theirs: dict[str, Cell] = {}
    own: dict[str | None, list[Cell]] = defaultdict(list)
    anchor = None
    for cell in mine.cells:
        name = key(cell)
        if name in wanted and name not in theirs:
            theirs[name], anchor = cell, name
        elif name in wanted or name not in known or not same(cell.source, known[name].source):
            own[anchor].append(as_plain(cell))

    cells, carried, replaced = list(own[None]), [], []
    for cell in deepcopy(release.cells):
        name = key(cell)
        edited = name in theirs and not same(theirs[name].source, known.get(name, cell).source)
        if edited and is_answer(cell):
            cell.source = theirs[name].source
            carried.append(name)
        elif edited and name in known and not grading(cell):
            if same(known[name].source, cell.source):
                cell = theirs[name]
            elif not same(theirs[name].source, cell.source):
                replaced.append(name)
        cells.extend([cell, *own[name]])
    result = deepcopy(release)
    result.cells = cells
    return Merge(with_unique_ids(result), tuple(carried), sum(map(len, own.values())), tuple(replaced))


def to_hand_in(mine: Notebook) -> Notebook:
    """The notebook without its outputs: they are not graded, and can be large or private."""
    result = deepcopy(mine)
    for cell in result.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    result.metadata.pop("widgets", None)
    return result
