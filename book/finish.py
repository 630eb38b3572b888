"""Puts into mdBook's pages what no chapter can say: the social card's tags, the license, answers open for printing."""

from __future__ import annotations

import html
import re
import textwrap
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

CARD = "social-card.png"
FOOTER = (
    '<footer class="license"><p>Text and figures: '
    '<a href="https://creativecommons.org/licenses/by/4.0/" rel="license">CC BY 4.0</a>. '
    'Code: <a href="https://www.apache.org/licenses/LICENSE-2.0">Apache-2.0</a>.</p></footer>'
)
#: Dots of the card, in inches: 1200 by 630 is what pages that show links ask for.
CARD_INCHES, CARD_DPI = (12, 6.3), 100


def finish_pages(site: Path, title: str, description: str, address: str | None) -> None:
    """Put the tags, the footer and the open answers into every page, and the card beside them.

    Args:
        site: the built pages.
        title: the book's title; description: one sentence about it.
        address: where the site will be published, with a slash at its end; None if that is not known. Pages that
            show a link find the card only by its full address.
    """
    draw_card(site / CARD, title, description)
    for page in sorted(site.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        if "</main>" not in text:
            continue  # a redirect or the sidebar's own page
        path = str(page.relative_to(site))
        if path == "print.html":
            text = re.sub(r"<details(?![^>]* open)", "<details open", text)
        text = re.sub(r"<th([^>]*)></th>", r"<td\1></td>", text)  # an empty corner is no heading
        text = text.replace("</main>", f"{FOOTER}</main>", 1)
        text = text.replace("</head>", card_tags(page_title(text), description, path, address) + "</head>", 1)
        page.write_text(text, encoding="utf-8")


def page_title(page: str) -> str:
    """What the browser's tab says, as plain text."""
    found = re.search(r"<title>(.*?)</title>", page, re.DOTALL)
    return html.unescape(found[1].strip()) if found else ""


def card_tags(title: str, description: str, path: str, address: str | None) -> str:
    """Open Graph tags of a page, and where it is published."""
    base = address if address is not None else "../" * path.count("/")
    tags = {
        "og:type": "article",
        "og:title": title,
        "og:description": description,
        "og:image": f"{base}{CARD}",
        "og:image:alt": description,
    }
    canonical = ""
    if address is not None and path != "404.html":
        tags["og:url"] = f"{address}{path.removesuffix('index.html')}"
        canonical = f'<link rel="canonical" href="{html.escape(tags["og:url"], quote=True)}">\n'
    lines = [f'<meta property="{name}" content="{html.escape(text, quote=True)}">\n' for name, text in tags.items()]
    return "".join(lines) + '<meta name="twitter:card" content="summary_large_image">\n' + canonical


def draw_card(file: Path, title: str, description: str) -> None:
    """The picture that stands beside a link to the book: its title over the pool of Day 1's ten tokens."""
    card = Figure(figsize=CARD_INCHES, dpi=CARD_DPI, facecolor="#161923")
    ax = card.add_axes((0, 0, 1, 1))
    ax.set_xlim(0, 24)
    ax.set_ylim(0, 12.6)
    ax.set_axis_off()
    ax.text(1.5, 9.7, title, fontsize=46, color="white", weight="bold", va="center")
    ax.text(1.5, 8.1, wrapped(description), fontsize=21, color="#c8c9db", va="top", linespacing=1.4)
    owned = {12: "Ten ", 5: "toke", 3: "ns"}
    for block in range(16):
        left, bottom = 1.5 + 2.65 * (block % 8), 2.6 - 1.55 * (block // 8)
        for slot in range(4):
            letter = owned.get(block, "")[slot : slot + 1]
            color = "#2b79a2" if letter else "#1f2334"
            corner = (left + 0.6 * slot, bottom)
            ax.add_patch(Rectangle(corner, 0.6, 0.95, facecolor=color, edgecolor="#5c627c", linewidth=1.5))
            ax.text(
                left + 0.6 * slot + 0.3, bottom + 0.47, letter, color="white", fontsize=17, ha="center", va="center"
            )
    card.savefig(file, metadata={"Software": None})


def wrapped(text: str, width: int = 62) -> str:
    """A sentence over several lines."""
    return "\n".join(textwrap.wrap(text, width))
