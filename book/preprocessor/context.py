"""What a directive may look at: where files are, which chapter asks, and the formula renderer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from book.preprocessor.faults import FaultError
from book.preprocessor.maths import MathRenderer

if TYPE_CHECKING:
    from book.preprocessor.glossary import Glossary


@dataclass(slots=True)
class Context:
    """The surroundings of one chapter while it is rendered.

    Attributes:
        root: the checkout; paths in directives start here.
        src: the folder of the chapters.
        figures: the folder that the drawn figures are in.
        chapter: path of the chapter below `src`, as in SUMMARY.md.
        maths: renders formulas; shared by all chapters.
        glossary: the terms of the whole book.
        needs_front_matter: whether the chapter must begin with its facts.
        used: how many ids of each kind the chapter has handed out.
        defined: forms of terms that the chapter has defined, and places of those that it has used.
        measured: for each result file that the chapter quotes, the words about its machine and date.
    """

    root: Path
    src: Path
    figures: Path
    chapter: str
    maths: MathRenderer
    glossary: Glossary
    needs_front_matter: bool = False
    used: dict[str, int] = field(default_factory=dict)
    defined: set[str] = field(default_factory=set)
    measured: dict[str, str] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The chapter's path as the beginning of an id."""
        return self.chapter.removesuffix(".md").replace("/", "-")

    def new_id(self, kind: str) -> str:
        """An HTML id that no other chapter uses: the print page holds them all."""
        self.used[kind] = self.used.get(kind, 0) + 1
        return f"{self.slug}-{kind}-{self.used[kind]}"

    def file(self, path: str) -> Path:
        """A file of the checkout, named from its root.

        Raises:
            FaultError: there is none, or the path leads out of the checkout.
        """
        found = (self.root / path).resolve()
        if not found.is_relative_to(self.root.resolve()) or not found.is_file():
            raise FaultError(f"no file {path} in the project (paths start at its root)")
        return found

    def url(self, path: str) -> str:
        """The address of a file of the site, relative to this chapter's page."""
        return "../" * self.chapter.count("/") + path
