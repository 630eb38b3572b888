"""What the tests of the site share: a small book to plant faults in, and the built site."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # `book` and `benchmarks` are run from the clone, not installed

from book.preprocessor.context import Context  # noqa: E402
from book.preprocessor.glossary import Glossary  # noqa: E402
from book.preprocessor.maths import MathRenderer  # noqa: E402
from tinyllm.doctor import find_chromium  # noqa: E402

SAMPLE = '''\
"""A module."""

LIMIT = 3


@part(day=1)
class Box:
    """Holds a number.

    Attributes:
        value: the number.
    """

    size: int = 4

    def __init__(self, value: int) -> None:
        self.value = value

    @property
    def double(self) -> int:
        """Twice the number."""
        return 2 * self.value

    def add(
        self, other: int
    ) -> int:
        """The sum."""
        total = self.value + other
        return total

    def _hidden(self) -> None:
        pass


def twice():
    return 2


def twice():
    return 4
'''
FIGURE = '<?xml version="1.0"?><svg width="9pt"><path id="a" style="fill: #1f77b4"/><use href="#a"/></svg>'
RESULT = {
    "date": "2026-01-01",
    "machine": {"cpu": "a CPU", "cpu_cores": 2, "gpu": None, "system": "Linux"},
    "versions": {"torch": "2.13"},
    "seed": 0,
    "waste": {"block_16": 1.25, "steps": 1234, "sizes": [8, 16]},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the tests of the built site to the end: those of the lessons run the notebooks that the site shows."""
    items.sort(key=lambda item: "site" in getattr(item, "fixturenames", ()))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one module, one figure, one result and one chapter."""
    (tmp_path / "sample.py").write_text(SAMPLE)
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    (tmp_path / "bad.json").write_text(json.dumps({"waste": 1}))
    for folder in ("book/src", "book/quizzes", "figures", "notebooks"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "figures" / "boxes.svg").write_text(FIGURE)
    (tmp_path / "figures" / "pink.svg").write_text(FIGURE.replace("#1f77b4", "#ff00ff"))
    (tmp_path / "book" / "src" / "other.md").write_text("# Other\n")
    return tmp_path


@pytest.fixture
def context(project: Path) -> Context:
    """The surroundings of the chapter `one.md`."""
    return Context(project, project / "book" / "src", project / "figures", "one.md", MathRenderer(), Glossary())


@pytest.fixture(scope="session")
def site() -> Path:
    """The real site, built once."""
    from book.build import build

    return build()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; not longer than a module, since other tests have event loops of their own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()
