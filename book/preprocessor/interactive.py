"""`{{#interactive name | caption}}`: a picture that answers, and a drawn figure in its place where there is no script.

The scripts are in book/interactive/: the shared kit, a model that is plain logic, and its view. They are loaded only by
the pages that use them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from book.preprocessor.context import Context
from book.preprocessor.faults import FaultError
from book.preprocessor.figures import picture
from book.preprocessor.inline import inline_html

FOLDER = Path(__file__).resolve().parents[1] / "interactive"

#: Name -> what the drawn figure shows, and the caption where the chapter gives none.
PICTURES = {
    "allocator": (
        "A pool of 16 blocks of 4 slots. Request A holds three blocks, its fork B shares the first two of them and "
        "has a copy of the third, and the prefix cache holds two more blocks that no request uses. The rest is free.",
        "A pool of 16 blocks. Allocate, append, fork and free, and watch the reference counts.",
    ),
    "batching": (
        "Two timelines with 3 seats each, for the same six requests. In static batching a seat stays empty until the "
        "longest request of its batch is done. In continuous batching the next request takes the seat at once, and "
        "the last request ends several steps earlier.",
        "The same requests under static and under continuous batching.",
    ),
    "merge": (
        "Eight scores, cut after the fifth. Each part has its maximum, its sum of exponentials and its output; both "
        "are scaled to the common maximum, and their sum is the softmax over all eight.",
        "Two partial attention states, merged, are the attention over all positions.",
    ),
}


def interactive(args: str, context: Context) -> str:
    """The figure element with the drawn picture, and the scripts that put the answering one in its place."""
    name, _, caption = (piece.strip() for piece in args.partition("|"))
    if name not in PICTURES:
        raise FaultError(f"no interactive picture {name!r}; there are: {', '.join(PICTURES)}")
    alt, usual = PICTURES[name]
    text = inline_html(caption or usual, context.maths)
    return (
        f'<figure class="fig interactive" data-interactive="{name}">'
        f'<div class="fig-scroll still">{picture(f"interactive_{name}", alt, context)}</div>'
        f"<figcaption>{text}</figcaption></figure>"
        + "".join(script(file, context) for file in ("kit", f"{name}_model", name))
    )


def script(name: str, context: Context) -> str:
    """The element that loads a script; its address changes with its content, so that no old copy is used."""
    file = FOLDER / f"{name}.js"
    version = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    return f'<script defer src="{context.url(f"interactive/{name}.js")}?v={version}"></script>'
