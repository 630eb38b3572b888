"""Runs the solved notebooks for the site, once for each state of what they are made from.

They run one after the other in one work folder, as a learner's would. What comes out is kept in book/build/solutions
under the hash of all that it depends on; `make book` runs nothing while that stays the same.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from grader.build.course import days
from grader.build.notebook import instructor_notebook, notebook_text
from tinyllm.paths import project_root

ROOT = project_root()
CACHE = ROOT / "book" / "build" / "solutions"
#: What a notebook's outputs depend on beside its own text: the code, the models, the texts, the library versions.
SOURCES = (
    "tinyllm/**/*.py",
    "grader/**/*.py",
    "solutions/**/*",
    "data/checkpoints/**/*",
    "data/**/*.py",
    "constraints.txt",
)
SECONDS_PER_CELL = 600


class NotebookError(Exception):
    """A solved notebook does not run. The message names the day and the cell's error."""


def executed_notebooks(folder: Path = CACHE) -> Path:
    """The folder with every day's solved notebook as it was run; runs them if their sources have changed.

    Args:
        folder: the cache. What it holds of other states of the sources is removed.

    Raises:
        NotebookError: one does not run from top to bottom.
    """
    found = folder / source_hash()
    course = days()
    if not all((found / f"{day.name}.ipynb").is_file() for day in course):
        with tempfile.TemporaryDirectory(prefix="solutions-") as work:
            for day in tqdm(course, desc="solved notebooks", file=sys.stdout):
                keep(day.name, run(instructor_notebook(day), work), folder)
    for other in folder.iterdir():
        if other != found:
            shutil.rmtree(other)
    return found


def run(notebook: Any, work: str) -> Any:
    """The notebook after a kernel has run it with its work in the folder `work`.

    Raises:
        NotebookError: a cell fails.
    """
    from nbclient import NotebookClient  # here, so that a build with a warm cache does not wait for it
    from nbclient.exceptions import CellControlSignal, DeadKernelError

    environment = {**os.environ, "TINYLLM_WORK": work, "PYTHONPATH": str(ROOT)}
    resources = {"metadata": {"path": work}}
    client = NotebookClient(notebook, timeout=SECONDS_PER_CELL, kernel_name="python3", resources=resources)
    try:
        client.execute(env=environment)
    except (CellControlSignal, DeadKernelError) as error:
        title = notebook.cells[0].source.partition("\n")[0].removeprefix("# ")
        raise NotebookError(f"the solved notebook of {title} does not run:\n{error}") from None
    return notebook


def keep(name: str, notebook: Any, folder: Path = CACHE) -> None:
    """Put a solved notebook that has been run into the cache; cells that the lesson does not have are left out."""
    lesson = {cell.id for day in days() if day.name == name for cell in instructor_notebook(day).cells}
    kept = {**notebook, "cells": [cell for cell in notebook.cells if cell.id in lesson]}
    target = folder / source_hash() / f"{name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(f".{os.getpid()}")
    draft.write_text(notebook_text(type(notebook)(kept)), encoding="utf-8")
    draft.replace(target)


@cache
def source_hash() -> str:
    """A name for the present state of everything that the outputs depend on."""
    total = hashlib.sha256(platform.python_version().encode())
    for file in source_files():
        total.update(f"{file.relative_to(ROOT)}\0".encode())
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def source_files() -> Iterator[Path]:
    """Every file that `SOURCES` names, in order."""
    for pattern in SOURCES:
        for file in sorted(ROOT.glob(pattern)):
            if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".partial":
                yield file
