"""A submission becomes a clean notebook with the release's structure. Bad input is told in words, never raised."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat.v4 import new_code_cell, new_markdown_cell

from grader.build.course import SETUP_TAG
from tinyllm.verbs import MAX_SUBMISSION_BYTES

MAX_OWN_CELLS = 200
NOTE_TITLE = "**What was done to your notebook before it was graded**"

Notebook = Any  # nbformat's NotebookNode, a dict with attribute access


class Unreadable(Exception):
    """The file is no notebook that can be graded. The message is for the student."""


@dataclass(frozen=True, slots=True)
class Intake:
    """A submission, ready to be graded.

    Attributes:
        notebook: the release's setup, answer and check cells with the student's answers and own code in them.
        notes: what was repaired, in words for the student.
        refused: the file could not be read; the notebook is the untouched release.
    """

    notebook: Notebook
    notes: tuple[str, ...]
    refused: bool = False


@dataclass(slots=True)
class _Taken:
    """What was found in a submission, by the release cell that it belongs to or follows."""

    answers: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    own: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: list[str] = field(default_factory=list)


def take_in(release: Notebook, path: Path | None) -> Intake:
    """Rebuild a submission from the release notebook.

    Taken over: the source of answer cells (of several copies the last that differs from the stub), code cells of the
    student's own, and definitions that were added to other cells. Demonstrations are left out: they earn nothing.

    Args:
        release: the pristine release notebook.
        path: the submitted file; None when there is none.
    """
    if path is None:
        return Intake(_assemble(release, _Taken()), ("no notebook was handed in",), refused=True)
    try:
        cells = read_cells(path)
    except Unreadable as error:
        return refuse(release, str(error))
    taken = _sort(release, cells)
    return Intake(_assemble(release, taken), tuple(taken.notes))


def refuse(release: Notebook, why: str) -> Intake:
    """The untouched release, in place of a file that cannot be graded."""
    taken = _Taken(notes=[f"your file could not be graded: {why}"])
    return Intake(_assemble(release, taken), tuple(taken.notes), refused=True)


def read_file(path: Path) -> bytes:
    """The bytes of a submitted file.

    Raises:
        Unreadable: not a regular file, or too large.
    """
    try:
        # The file itself and not what a link points to; without waiting for the other end of a pipe.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise Unreadable("it is a link or cannot be opened") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unreadable("it is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_SUBMISSION_BYTES + 1)
    if len(data) > MAX_SUBMISSION_BYTES:
        raise Unreadable(f"it is larger than {MAX_SUBMISSION_BYTES >> 20} MiB; clear the outputs or remove pictures")
    return data


def read_cells(path: Path) -> list[Any]:
    """The cells of a submitted file, as they are in it.

    Raises:
        Unreadable: not a regular file, too large, no JSON, or no notebook of version 4.
    """
    data = read_file(path)
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Unreadable("it is not valid JSON, as a notebook has to be") from error
    if not isinstance(notebook, dict) or notebook.get("nbformat") != 4 or not isinstance(notebook.get("cells"), list):
        raise Unreadable("it is not a notebook of version 4; save it again with a current JupyterLab")
    return list(notebook["cells"])


# ---------------------------------------------------------------- sorting what is there


def _sort(release: Notebook, cells: list[Any]) -> _Taken:
    """Tell apart answers, copies of the release's other cells, and the student's own."""
    by_id = {cell.id: cell for cell in release.cells}
    by_text = {_squeezed(cell.source): cell.id for cell in release.cells if cell.cell_type == "code"}
    cells = [cell for cell in cells if isinstance(cell, dict)]
    named = {name for cell in cells if (name := _release_name(cell, by_id))}
    taken, seen, anchor, number_own = _Taken(), set[str](), "", 0
    for cell in cells:
        source, name = _source(cell), _release_name(cell, by_id)
        is_code = cell.get("cell_type") == "code" and bool(source.strip())
        if name is None and is_code and (same := by_text.get(_squeezed(source))):
            if same in named:
                continue  # a second copy of a cell of the release adds nothing
            name = same  # other editors drop ids and metadata
        if name is not None:
            _sort_known(by_id[name], source, taken, repeated=name in seen)
            seen.add(name)
            anchor = name
        elif is_code:
            number_own += 1
            if number_own <= MAX_OWN_CELLS:
                taken.own[anchor].append(source)
    if number_own > MAX_OWN_CELLS:
        taken.notes.append(f"of your {number_own} own cells the first {MAX_OWN_CELLS} were kept")
    for name, cell in by_id.items():
        if _grading(cell) and name not in seen:
            kind = "answer" if _grading(cell)["solution"] else "check"
            taken.notes.append(f"the {kind} cell `{name}` was missing and has been put back")
    _find_answers_elsewhere(by_id, taken)
    taken.notes = list(dict.fromkeys(taken.notes))
    return taken


def _release_name(cell: Mapping[str, Any], by_id: Mapping[str, Any]) -> str | None:
    """The id of the release's cell that a submitted cell says it is, by its grade id or its own id."""
    return next((name for name in (_grade_id(cell), cell.get("id")) if isinstance(name, str) and name in by_id), None)


def _sort_known(cell: Any, source: str, taken: _Taken, repeated: bool) -> None:
    """A cell that the release has too."""
    grading = _grading(cell)
    if grading.get("solution"):
        if repeated:
            taken.notes.append(f"the answer cell `{cell.id}` was there more than once; the last answer in it counts")
        taken.answers[cell.id].append(source)
    elif grading:
        if _squeezed(source) != _squeezed(cell.source):
            taken.notes.append(f"the check cell `{cell.id}` had been changed and was restored")
        elif repeated:
            taken.notes.append(f"the check cell `{cell.id}` was there more than once; one was kept")
    elif cell.cell_type == "code" and (helpers := added_definitions(source, cell.source)):
        taken.own[cell.id].append(helpers)


def _find_answers_elsewhere(by_id: Mapping[str, Any], taken: _Taken) -> None:
    """Where an answer cell is gone or at its stub, take the last cell of the student's own that defines its name."""
    for name, cell in by_id.items():
        if not _grading(cell).get("solution") or _answer(cell, taken):
            continue
        definition = re.compile(rf"^(?:class|def)\s+{re.escape(name)}\b", re.MULTILINE)
        own = [source for sources in taken.own.values() for source in sources if definition.search(source)]
        if own:
            taken.answers[name].append(own[-1])
            taken.notes.append(f"your answer to `{name}` was found in a cell of your own")


def _answer(cell: Any, taken: _Taken) -> str | None:
    """The last copy of an answer that differs from the stub."""
    stub = _squeezed(cell.source)
    return next((text for text in reversed(taken.answers[cell.id]) if _squeezed(text) not in (stub, "")), None)


def added_definitions(mine: str, theirs: str) -> str:
    """The imports, functions, classes and plain constants of a cell that its release does not have.

    A cell that does more than define, such as a long demonstration, is not run when grading.
    """
    try:
        known = {ast.dump(node) for node in ast.parse(theirs).body}
        added = [node for node in ast.parse(mine).body if ast.dump(node) not in known and _defines(node)]
        return "\n".join(ast.unparse(node) for node in added)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""  # it holds a notebook command (`%time`), or does not run anyway


def _defines(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        try:
            ast.literal_eval(node.value)
        except (ValueError, TypeError):
            return False
        return True
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


# ---------------------------------------------------------------- putting it together


def _assemble(release: Notebook, taken: _Taken) -> Notebook:
    """The release without text and demonstrations, with what was taken in its places."""
    notebook = deepcopy(release)
    cells: list[Any] = []
    if taken.notes:
        cells.append(new_markdown_cell("\n".join([NOTE_TITLE, "", *(f"- {note}" for note in taken.notes)]), id="notes"))
    cells += _own_cells("", taken)
    for cell in notebook.cells:
        if _grading(cell).get("solution"):
            cell.source = _answer(cell, taken) or cell.source
        if _grading(cell) or SETUP_TAG in cell.metadata.get("tags", []):
            cells.append(cell)
        cells += _own_cells(cell.id, taken)
    notebook.cells = cells
    return notebook


def _own_cells(anchor: str, taken: _Taken) -> Iterator[Any]:
    for number, source in enumerate(taken.own.get(anchor, []), 1):
        yield new_code_cell(source, id=f"own-{number}-{anchor}"[:64].rstrip("-"))


def _source(cell: Mapping[str, Any]) -> str:
    source = cell.get("source", "")
    text = "".join(line for line in source if isinstance(line, str)) if isinstance(source, list) else source
    # Half a surrogate pair is legal in JSON and cannot be written to a file.
    return text.encode("utf-8", "replace").decode("utf-8") if isinstance(text, str) else ""


def _grading(cell: Any) -> Mapping[str, Any]:
    """nbgrader's metadata of a release cell; empty where it has none."""
    return cell.metadata.get("nbgrader", {})


def _grade_id(cell: Mapping[str, Any]) -> str | None:
    """The grade id that a submitted cell claims, whatever its metadata are."""
    metadata = cell.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    grade_id = nbgrader.get("grade_id") if isinstance(nbgrader, dict) else None
    return grade_id if isinstance(grade_id, str) else None


def _squeezed(source: str) -> str:
    """A source without blanks at line ends and around it, to compare with."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())
