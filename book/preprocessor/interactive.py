"""`{{#interactive name | caption}}`: a picture that answers, and a drawn figure in its place where there is no script.

The scripts are in book/interactive/: the shared kit, a model that is plain logic, and its view. They are loaded only by
the pages that use them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from book.preprocessor.context import Context
from book.preprocessor.faults import FaultError
from book.preprocessor.figures import picture
from book.preprocessor.inline import inline_html

FOLDER = Path(__file__).resolve().parents[1] / "interactive"


@dataclass(frozen=True, slots=True)
class Picture:
    """An interactive picture: the drawn figure that stands in for it, what that shows, and a caption for both."""

    still: str
    alt: str
    caption: str


PICTURES = {
    "allocator": Picture(
        "interactive_allocator",
        "A pool of 16 blocks of 4 slots. Request A holds three blocks with the ten letters of Ten tokens. Its fork B "
        "shares the first two, each with 2 references, and has a copy of the third, in which its eleventh token "
        "stands. The prefix cache alone holds two more blocks. The rest is free.",
        "A pool of 16 blocks. Allocate, append, fork and free, and watch the reference counts.",
    ),
    "batching": Picture(
        "static_and_continuous",
        "Two timelines of the same six requests, A to F, on three seats. Under static batching two seats are without "
        "work until the longest request of the batch is done. Under continuous batching the next request takes a "
        "seat as soon as it is free, and all are done several steps earlier.",
        "The same six requests under static and under continuous batching.",
    ),
    "merge": Picture(
        "interactive_merge",
        "Eight scores with a value each, cut after the fifth. Of each part three numbers are kept: its maximum m, its "
        "sum of exponentials l and its output o. Merged they give the same output as the softmax over all eight.",
        "Two partial attention states, merged, are the attention over all positions.",
    ),
    "experts": Picture(
        "dispatch_ribbon",
        "Twenty pairs of a token and an expert: as they come, sorted by expert, and padded. Expert 0 has 9 pairs in "
        "three blocks of four rows, expert 1 has 5 in two, expert 3 has 6 in two, and expert 2 has none. 8 of 28 rows "
        "are padding.",
        "Route ten tokens to four experts by hand. Watch the loads, the blocks and what is wasted.",
    ),
}


def interactive(args: str, context: Context) -> str:
    """The figure element with the drawn picture, and the scripts that put the answering one in its place."""
    name, _, caption = (piece.strip() for piece in args.partition("|"))
    if name not in PICTURES:
        raise FaultError(f"no interactive picture {name!r}; there are: {', '.join(PICTURES)}")
    found = PICTURES[name]
    text = inline_html(caption or found.caption, context)
    return (
        f'<figure class="fig interactive" data-interactive="{name}">'
        f'<div class="fig-scroll still">{picture(found.still, found.alt, context)}</div>'
        f"<figcaption>{text}</figcaption></figure>"
        + "".join(script(file, context) for file in ("kit", f"{name}_model", name))
    )


def script(name: str, context: Context) -> str:
    """The element that loads a script; its address changes with its content, so that no old copy is used."""
    file = FOLDER / f"{name}.js"
    version = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    return f'<script defer src="{context.url(f"interactive/{name}.js")}?v={version}"></script>'
