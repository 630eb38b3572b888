"""`{{#figure name | alternative text | caption}}`: an SVG put into the page, in the colors of the reader's theme.

Figures are drawn in sentinel colors (see book/figures/style.py), which become CSS variables here.
"""

from __future__ import annotations

import html
import re

from book.preprocessor.context import Context
from book.preprocessor.faults import FaultError
from book.preprocessor.inline import inline_html

#: Color in the file, and what the page takes in its place.
THEME_COLORS = {
    "#010101": "var(--fg)",
    "#fefefe": "var(--bg)",
    "#7f7f7e": "var(--fig-muted)",
    "#1f77b4": "var(--fig-1)",
    "#ff7f0e": "var(--fig-2)",
    "#2ca02c": "var(--fig-3)",
    "#d62728": "var(--fig-4)",
    "#9467bd": "var(--fig-5)",
}


def figure(args: str, context: Context) -> str:
    """The figure element of a drawn figure, with its alternative text and caption."""
    name, alt, caption = (piece.strip() for piece in (args + "||").split("|")[:3])
    drawn = picture(name, alt, context)
    if not caption:
        raise FaultError(f"figure {name} has no caption; write {{{{#figure {name} | what it shows | caption}}}}")
    text = inline_html(caption, context)
    return f'<figure class="fig"><div class="fig-scroll">{drawn}</div><figcaption>{text}</figcaption></figure>'


def picture(name: str, alt: str, context: Context) -> str:
    """The `<svg>` element of a drawn figure.

    Raises:
        FaultError: there is no such figure, it has no alternative text, or colors that do not follow the theme.
    """
    file = context.figures / f"{name}.svg"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in context.figures.glob("*.svg")))
        raise FaultError(f"no figure {name!r}; book/figures/ draws: {known or 'none'}")
    if not alt:
        raise FaultError(
            f"figure {name} has no alternative text; write {{{{#figure {name} | what it shows | caption}}}}"
        )
    svg = own_ids(themed(file.read_text(encoding="utf-8"), name), context.new_id("fig"))
    label = html.escape(" ".join(alt.split()), quote=True)
    return re.sub(r"<svg\b", f'<svg role="img" aria-label="{label}"', svg, count=1)


def themed(svg: str, name: str) -> str:
    """The `<svg>` element on one line, without metadata, its sentinel colors turned into variables.

    Raises:
        FaultError: it holds another color, which would stay the same in every theme.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
    strays = {color for color in re.findall(r"#[0-9a-fA-F]{6}\b", svg) if color.lower() not in THEME_COLORS}
    if strays:
        raise FaultError(f"figure {name} has colors that no theme can change: {', '.join(sorted(strays))}")
    for color, variable in THEME_COLORS.items():
        svg = re.sub(color, variable, svg, flags=re.I)
    return re.sub(r"\s*\n\s*", " ", svg).strip()


def own_ids(svg: str, prefix: str) -> str:
    """The same picture with ids (and references to them) that are unique in the page."""
    ids = sorted(set(re.findall(r'\bid="([^"]+)"', svg)), key=len, reverse=True)
    for old in ids:
        svg = re.sub(rf'(\bid="|#){re.escape(old)}(?![\w-])', rf"\g<1>{prefix}-{old}", svg)
    return svg
