"""What every maker of a hostile or honest submission works with: a notebook, and what its code deserves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from grader.build.course import CellKind, Day, find_day
from grader.build.notebook import notebook_text, release_notebook
from grader.build.sources import exercise_sources

FUNCTION, CLASS = "kv_bytes_per_token", "BlockAllocator"
FULL = {FUNCTION: 2.0, CLASS: 3.0}
NOTHING = {FUNCTION: 0.0, CLASS: 0.0}
NO_FUNCTION = {FUNCTION: 0.0, CLASS: 3.0}  # the function's answer is wrong, and whatever is tried does not help

WRONG = """\
def kv_bytes_per_token(config, bytes_per_element):
    return 1
"""

#: Before every bomb: it does not go off where nothing holds it, and says when it does.
GUARD = """\
import os, resource
if os.getuid() == 0 or os.getpid() > 1000 or resource.getrlimit(resource.RLIMIT_NPROC)[0] > 256:
    raise RuntimeError("nothing holds this")
if resource.getrlimit(resource.RLIMIT_AS)[0] > 16 << 30 or resource.getrlimit(resource.RLIMIT_FSIZE)[0] > 1 << 30:
    raise RuntimeError("nothing holds this")
print("armed")
"""


def small_day() -> Day:
    """Day 1 with two of its exercises, one a function and one a class: the corpus is graded in a minute."""
    day = find_day("day1")
    cells = tuple(
        cell
        for cell in day.cells
        if cell.kind is CellKind.SETUP or (cell.exercise is not None and cell.exercise.name in FULL)
    )
    return replace(day, cells=cells)


DAY = small_day()
FILE = f"{DAY.name}.ipynb"


@dataclass(frozen=True)
class Places:
    """Where things are while the corpus is graded, for code that tries to reach them.

    Attributes:
        submissions: the class; out: the output folder; home: a home directory; port: of a listener on this machine.
    """

    submissions: Path
    out: Path
    home: Path
    port: int

    @property
    def forbidden(self) -> list[str]:
        """Folders that no submission may read or write."""
        return [str(path) for path in (self.submissions, self.out, self.home)]


class Book:
    """One submission in the making: right answers in the release notebook, until a maker changes them."""

    def __init__(self, places: Places, folder: Path) -> None:
        self.places = places
        self.folder = folder
        self.name = FILE
        self.data: dict[str, Any] = json.loads(notebook_text(release_notebook(DAY)))
        self.raw: bytes | None = None
        for cell in self.cells:
            cell["source"] = "".join(cell["source"])  # a file has a list of lines
        for name in FULL:
            self.answer(name, exercise_sources(name).solution)

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The cells of the notebook."""
        cells: list[dict[str, Any]] = self.data["cells"]
        return cells

    def cell(self, name: str) -> dict[str, Any]:
        """The cell with that id: an exercise's name, or "check-" and the name."""
        return next(cell for cell in self.cells if cell["id"] == name)

    def answer(self, name: str, source: str) -> None:
        """Write an answer."""
        self.cell(name)["source"] = source

    def own(self, source: str, before: str = FUNCTION) -> None:
        """Put a cell of the student's own before a cell of the release."""
        cell = {"cell_type": "code", "id": f"mine-{len(self.cells)}", "metadata": {}, "source": source}
        self.cells.insert(self.cells.index(self.cell(before)), {**cell, "outputs": [], "execution_count": None})

    def bomb(self, source: str) -> None:
        """A cell of the student's own that must run inside limits only."""
        self.own(GUARD + source)

    def remove(self, name: str) -> None:
        """Delete a cell."""
        self.cells.remove(self.cell(name))

    def write(self) -> None:
        """Write what is handed in."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / self.name
        if not path.exists() and not path.is_symlink():
            path.write_bytes(json.dumps(self.data).encode() if self.raw is None else self.raw)


Maker = Callable[[Book], None]


@dataclass(frozen=True)
class Hostile:
    """A maker, and how what it makes must end: points by exercise, and one of these statuses."""

    make: Maker
    points: Mapping[str, float]
    statuses: tuple[str, ...] = ("graded",)
    folder: str = ""
    words: str = ""

    @property
    def student(self) -> str:
        """The student's name."""
        return self.folder or self.make.__name__


@dataclass
class Corpus:
    """The makers of one file, in its order."""

    makers: list[Hostile] = field(default_factory=list)

    def __call__(
        self, points: Mapping[str, float], *statuses: str, folder: str = "", words: str = ""
    ) -> Callable[[Maker], Maker]:
        """Add a maker.

        Args:
            points: what the code deserves.
            statuses: how it may end; "graded" when none is given.
            folder: the name of the student's folder, when it is not the maker's.
            words: what the feedback page must say.
        """

        def add(make: Maker) -> Maker:
            self.makers.append(Hostile(make, points, statuses or ("graded",), folder, words))
            return make

        return add
