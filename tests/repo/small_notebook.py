"""A release notebook of seven cells, built as the course's builder does."""

from __future__ import annotations

from typing import Any

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

STUB = "def {name}():\n    # YOUR CODE HERE\n    raise NotImplementedError()"


def answer_cell(name: str, source: str | None = None) -> Any:
    """An exercise's cell, at its stub unless `source` is given."""
    metadata = {"nbgrader": {"grade_id": name, "solution": True, "grade": False, "locked": False, "schema_version": 3}}
    return new_code_cell(source or STUB.format(name=name), id=f"a-{name}", metadata=metadata)


def check_cell(name: str) -> Any:
    """The locked cell below an exercise."""
    metadata = {
        "nbgrader": {"grade_id": f"check-{name}", "grade": True, "solution": False, "locked": True, "points": 2}
    }
    return new_code_cell(f"check({name})", id=f"c-{name}", metadata=metadata)


def day1() -> Any:
    """A release notebook with two exercises, a text and a demonstration."""
    cells = [new_markdown_cell("# Day 1", id="title")]
    for name in ("first", "second"):
        cells += [answer_cell(name), check_cell(name), new_code_cell(f"print({name}())", id=f"demo-{name}")]
    return new_notebook(cells=cells)


def cell(notebook: Any, cell_id: str) -> Any:
    """The one cell with this id."""
    (found,) = [c for c in notebook.cells if c.id == cell_id]
    return found
