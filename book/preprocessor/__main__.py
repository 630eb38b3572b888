"""mdBook's protocol: `supports <renderer>`, or a book on standard input and the rendered book on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from book.preprocessor.chapter import render_chapter
from book.preprocessor.context import Context
from book.preprocessor.faults import Fault
from book.preprocessor.glossary import read_glossary
from book.preprocessor.maths import MathRenderer
from book.preprocessor.solution_pages import FOLDER, solution_items


def chapters(items: list[Any]) -> Iterator[dict[str, Any]]:
    """Every chapter of a book that has a file, depth first."""
    for item in items:
        if isinstance(item, dict) and "Chapter" in item:
            chapter = item["Chapter"]
            if chapter.get("path"):
                yield chapter
            yield from chapters(chapter["sub_items"])


def render_book(mdbook: dict[str, Any], book: dict[str, Any]) -> list[Fault]:
    """Render every chapter of `book` in place and return what is wrong.

    Args:
        mdbook: mdBook's context: its root folder and configuration.
        book: the book as mdBook read it.
    """
    book_root = Path(mdbook["root"])
    src = book_root / mdbook["config"]["book"].get("src", "src")
    figures = Path(os.environ.get("BOOK_FIGURES") or book_root / "build" / "figures")
    if "BOOK_SOLUTIONS" in os.environ:
        book["items"] += solution_items(Path(os.environ["BOOK_SOLUTIONS"]), book_root.parent)
    settings = mdbook["config"].get("preprocessor", {}).get("course", {})
    strict = bool(settings.get("front-matter", False))
    faults: list[Fault] = []
    glossary = read_glossary({c["path"]: (c["name"], c["content"]) for c in chapters(book["items"])})
    with MathRenderer() as maths:
        for chapter in chapters(book["items"]):
            written = strict and not chapter["path"].startswith(f"{FOLDER}/")
            context = Context(book_root.parent, src, figures, chapter["path"], maths, glossary, written)
            chapter["content"], found = render_chapter(chapter["content"], context)
            faults += found
    return faults


def main() -> int:
    """Answer mdBook. Faults go to standard error, one a line, and stop the build."""
    if sys.argv[1:2] == ["supports"]:
        return 0 if sys.argv[2:] == ["html"] else 1
    mdbook, book = json.load(sys.stdin)
    if "items" not in book:
        print(f"mdBook {mdbook.get('mdbook_version')} is too old; this book needs 0.5", file=sys.stderr)
        return 1
    faults = render_book(mdbook, book)
    for fault in faults:
        print(f"book/src/{fault}", file=sys.stderr)
    if faults:
        return 1
    json.dump(book, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
