"""From a day's lesson to its two notebooks: the instructor's (solved, with hidden tests) and the release (stubs)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader import preprocessors as nbgrader
from traitlets.config import Config

from grader.build.course import HEAD_LINE, SETUP_TAG, CellKind, Day, LessonCell, days
from grader.build.sources import STUB, marked_source
from tinyllm.paths import project_root

Notebook = Any  # nbformat's NotebookNode, a dict with attribute access

#: What a check cell gets in the instructor's notebook. nbgrader strips it from the release.
HIDDEN_TEST = """\
{check}
### BEGIN HIDDEN TESTS
from grader.hidden import check_hidden
check_hidden({name})
### END HIDDEN TESTS"""

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def nbgrader_config() -> Config:
    """What both this builder and an nbgrader course folder need to strip a notebook alike."""
    return Config({"ClearSolutions": {"code_stub": {"python": STUB}}})


def instructor_notebook(day: Day) -> Notebook:
    """The solved notebook of a day, with nbgrader's markers and the hidden tests."""
    cells = list(_cells(day))
    notebook = new_notebook(cells=cells, metadata=deepcopy(METADATA))
    nbformat.validate(notebook)
    return notebook


def release_notebook(day: Day) -> Notebook:
    """The notebook that learners get: nbgrader's own steps of generate_assignment, without its database."""
    notebook, resources = instructor_notebook(day), dict[str, Any]()
    for step in (
        nbgrader.LockCells,
        nbgrader.ClearSolutions,
        nbgrader.ClearOutput,
        nbgrader.CheckCellMetadata,
        nbgrader.ClearHiddenTests,
        nbgrader.ClearMarkScheme,
        nbgrader.ComputeChecksums,
        nbgrader.CheckCellMetadata,
    ):
        notebook, resources = step(config=nbgrader_config()).preprocess(notebook, resources)
    nbformat.validate(notebook)
    return notebook


def notebook_text(notebook: Notebook) -> str:
    """A notebook as the text of its file; equal notebooks give equal bytes."""
    return nbformat.writes(notebook, version=4) + "\n"


def release_path(day: Day, root: Path | None = None) -> Path:
    """Where the release notebook of a day is kept."""
    return (root or project_root()) / "notebooks" / f"{day.name}.ipynb"


def instructor_path(day: Day, root: Path | None = None) -> Path:
    """Where the instructor's notebook of a day is written; git ignores it."""
    return (root or project_root()) / "build" / "instructor" / f"{day.name}.ipynb"


def write_notebooks(root: Path | None = None) -> list[Path]:
    """Build both notebooks of every day and write those that changed.

    Returns:
        Every notebook's path, release notebooks first.
    """
    course = days(root)
    texts = {release_path(day, root): notebook_text(release_notebook(day)) for day in course}
    texts |= {instructor_path(day, root): notebook_text(instructor_notebook(day)) for day in course}
    for path, text in texts.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return list(texts)


# ---------------------------------------------------------------- cells


def _cells(day: Day) -> Iterator[Notebook]:
    seen: Counter[str] = Counter()
    for lesson_cell in day.cells:
        cell = _cell(day, lesson_cell)
        if "nbgrader" in cell.metadata:
            cell.id = cell.metadata.nbgrader["grade_id"]
        else:
            digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
            seen[digest] += 1
            cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        yield cell


def _cell(day: Day, cell: LessonCell) -> Notebook:
    spec = cell.exercise
    match cell.kind:
        case CellKind.MARKDOWN:
            return new_markdown_cell(HEAD_LINE.sub(lambda m: day.exercises[m["name"]].head, cell.source))
        case CellKind.EXERCISE if spec:
            return new_code_cell(marked_source(day, spec), metadata=_nbgrader(spec.name, solution=True))
        case CellKind.CHECK if spec:
            source = HIDDEN_TEST.format(check=cell.source, name=spec.name)
            return new_code_cell(source, metadata=_nbgrader(f"check-{spec.name}", points=spec.points))
        case CellKind.SETUP:
            return new_code_cell(cell.source, metadata={"tags": [SETUP_TAG]})
    return new_code_cell(cell.source)


def _nbgrader(grade_id: str, solution: bool = False, points: float | None = None) -> dict[str, Any]:
    """nbgrader's metadata of a solution cell, or of a locked check cell with its points."""
    metadata: dict[str, Any] = {
        "schema_version": 3,
        "grade_id": grade_id,
        "solution": solution,
        "grade": not solution,
        "locked": not solution,
        "task": False,
    }
    if points is not None:
        metadata["points"] = points
    return {"nbgrader": metadata}
