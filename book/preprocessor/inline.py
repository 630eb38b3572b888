"""The little Markdown that captions and quiz texts may use: `code` and $formulas$."""

from __future__ import annotations

import html
import re

from book.preprocessor.maths import MathRenderer


def inline_html(text: str, maths: MathRenderer) -> str:
    """HTML on one line; everything but code spans and formulas is plain text."""
    pieces = re.split(r"(`[^`]+`|\$[^$]+\$)", " ".join(text.split()))
    return "".join(
        f"<code>{html.escape(piece[1:-1])}</code>"
        if len(piece) > 2 and piece.startswith("`")
        else maths.render(piece[1:-1], display=False)
        if len(piece) > 2 and piece.startswith("$")
        else html.escape(piece)
        for piece in pieces
    )
