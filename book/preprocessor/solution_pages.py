"""Solved notebooks, run from top to bottom, as chapters at the end of the book. No search finds them.

`python -m book.build` runs the notebooks (book/solutions.py) and says in BOOK_SOLUTIONS where they are.
"""

from __future__ import annotations

import ast
import base64
import html
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = "solutions"
#: Where the notebooks say that the book is (`make book-serve`); on a page of the book itself it is the folder above.
SERVED_AT = "http://localhost:3000/"
MARKERS = re.compile(
    r"^ *### (?:BEGIN|END) SOLUTION\n?|^### BEGIN HIDDEN TESTS\n.*?^### END HIDDEN TESTS\n?", re.M | re.S
)
ANSI = re.compile(r"\x1b\[[0-9;]*m")

Notebook = dict[str, Any]
Item = dict[str, Any]


def solution_items(folder: Path, root: Path) -> list[Item]:
    """The part of the book that holds the solved notebooks of a folder; empty where there is none.

    Args:
        folder: the notebooks, as they were run.
        root: the checkout, whose pictures the notebooks draw.
    """
    files = sorted(folder.glob("*.ipynb"))
    return [{"PartTitle": "Solutions"}, *(solution_chapter(file, root) for file in files)] if files else []


def solution_chapter(file: Path, root: Path) -> Item:
    """One solved notebook as mdBook's chapter."""
    text = "\n\n".join(page_pieces(read(file), file.stem, root)) + "\n"
    title = text.partition("\n")[0].removeprefix("# ")
    return {
        "Chapter": {
            "name": title,
            "content": text,
            "number": None,
            "sub_items": [],
            "path": f"{FOLDER}/{file.stem}.md",
            "source_path": f"../../solutions/{file.stem}/lesson.py",  # what the link to edit the page opens
            "parent_names": [],
        }
    }


def page_pieces(notebook: Notebook, name: str, root: Path) -> Iterator[str]:
    """The page's Markdown, cell by cell, with a heading that says what it is."""
    first, *cells = notebook["cells"]
    heading, _, rest = joined(first["source"]).partition("\n")
    yield f"# {heading.removeprefix('# ').partition(':')[0]}, solved"
    yield "> [!IMPORTANT]\n> This page is the notebook with every answer in it. Try it without them first."
    yield f"{{{{#notebook {name}}}}}"
    yield re.sub(rf"{re.escape(SERVED_AT)}(\w+)\.html", r"../\1.md", rest.strip())
    for position, cell in enumerate(cells, start=1):
        source = joined(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
        else:
            yield fenced(MARKERS.sub("", source).strip("\n"), "python")
            yield from outputs(cell, f"{name}-{position}", root)


def outputs(cell: Item, name: str, root: Path) -> Iterator[str]:
    """What a cell has printed, drawn and returned. Progress bars are left out, and what hidden tests say."""
    hidden = "### BEGIN HIDDEN TESTS" in joined(cell["source"])
    for output in cell["outputs"][: 1 if hidden else None]:
        data = output.get("data", {})
        if output["output_type"] == "stream":
            if output["name"] == "stdout":
                yield shown_text(joined(output["text"]))
        elif "image/png" in data:
            alt = html.escape(what_is_drawn(joined(cell["source"]), root), quote=True)
            yield f'<p class="output drawn"><img src="{name}.png" alt="{alt}"></p>'
        elif joined(data.get("text/html", "")).startswith("<table"):
            table = " ".join(joined(data["text/html"]).split())
            yield f'<div class="output table-wrapper">{table}</div>'
        elif "application/vnd.jupyter.widget-view+json" not in data:
            yield shown_text(joined(data.get("text/plain", "")))


def pictures(file: Path) -> Iterator[tuple[str, bytes]]:
    """The PNG files that the page of a solved notebook shows, with their names."""
    for position, cell in enumerate(read(file)["cells"]):
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield f"{file.stem}-{position}.png", base64.b64decode(output["data"]["image/png"])


def what_is_drawn(source: str, root: Path) -> str:
    """A sentence about the picture that a cell draws: the first line of the drawing function's docstring."""
    names = re.findall(r"\bplots\.(\w+)\(", source)
    known = drawing_functions(root)
    lines = [known[name] for name in names if name in known]
    return lines[-1] if lines else "The picture that the code above draws."


@cache
def drawing_functions(root: Path) -> dict[str, str]:
    """Name and first line of the docstring of every function in tinyllm/plots."""
    found = {}
    for file in sorted((root / "tinyllm" / "plots").glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                found[node.name] = (ast.get_docstring(node) or "").partition("\n")[0]
    return found


def shown_text(text: str) -> str:
    """Printed text as a block of its own."""
    text = ANSI.sub("", text).rstrip()
    return f'<div class="output">\n\n{fenced(text, "text")}\n\n</div>' if text else ""


def fenced(text: str, language: str) -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def read(file: Path) -> Notebook:
    """A notebook's JSON."""
    notebook: Notebook = json.loads(file.read_text(encoding="utf-8"))
    return notebook


def joined(text: str | list[str]) -> str:
    """A notebook's text, which may be kept as a list of lines."""
    return text if isinstance(text, str) else "".join(text)
