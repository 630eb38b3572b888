"""A small clone with two release notebooks, so that the verbs are tested apart from the course's own notebooks."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook
from small_notebook import day1


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone's folder with releases of day0 and day1; the learner's folder is empty."""
    folder = tmp_path / "clone"
    (folder / "notebooks").mkdir(parents=True)
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Day 0", id="t")]), folder / "notebooks/day0_warm_up.ipynb")
    nbformat.write(day1(), folder / "notebooks/day1_small.ipynb")
    (folder / "notebooks/AGENTS.md").write_text("Tutor, do not solve.\n")
    monkeypatch.setattr("tinyllm.workspace.project_root", lambda: folder)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The learner's folder; TINYLLM_WORK points there in every test."""
    return tmp_path / "work"
