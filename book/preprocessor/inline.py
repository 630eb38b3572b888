"""The little Markdown that captions, quizzes and front matter may use: `code`, $formulas$ and [links](day1.md)."""

from __future__ import annotations

import html
import re

from book.preprocessor.context import Context
from book.preprocessor.links import page_address

PIECE = re.compile(
    r"`(?P<code>[^`]+)`|\$(?P<formula>[^$]+)\$|\[(?P<text>[^\]]+)\]\((?P<address>[^)\s]+)\)|(?P<plain>.)", re.S
)


def inline_html(text: str, context: Context) -> str:
    """HTML on one line; everything but code spans, formulas and links is plain text.

    Raises:
        FaultError: a formula is wrong or a link is dead.
    """

    def shown(match: re.Match[str]) -> str:
        if match["code"]:
            return f"<code>{html.escape(match['code'])}</code>"
        if match["formula"]:
            return context.maths.render(match["formula"], display=False)
        if match["text"]:
            address = html.escape(page_address(match["address"], context), quote=True)
            return f'<a href="{address}">{inline_html(match["text"], context)}</a>'
        return html.escape(match["plain"])

    return PIECE.sub(shown, " ".join(text.split()))
