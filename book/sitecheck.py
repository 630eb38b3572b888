"""Checks a built site without a network: links, fragments, ids, headings, loads from elsewhere, leftover markup."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

VOID_TAGS = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
)
LOADING_TAGS = frozenset(["img", "script", "iframe", "source", "video", "audio", "embed"])
CODE_TAGS = frozenset({"script", "style", "code", "pre", "title", "math"})
LEFTOVER = re.compile(r"\{\{#[^}]*\}?\}?|\[!\w+\]|\$\$|\]\([^)\s]+\)|\bTODO\b|`[^`]+`|(?<![\w*])\*\w[^*]*\w\*(?![\w*])")
#: Pages made of the others, in which ids repeat.
COMBINED = frozenset({"print.html", "toc.html"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a page, by its path in the site."""

    page: str
    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.page}: {self.kind}: {self.what}"


@dataclass(slots=True)
class Page:
    """What matters of a page: its ids, where it links to, what it loads, its headings and plain text."""

    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    images_without_alt: list[str] = field(default_factory=list)
    headings: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    is_redirect: bool = False


class PageParser(HTMLParser):
    """Reads a `Page` from HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self.open_tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note ids, links, loads and headings."""
        page, values = self.page, {name: value or "" for name, value in attrs}
        if tag not in VOID_TAGS:
            self.open_tags.append(tag)
        if values.get("id"):
            page.ids.append(values["id"])
        if tag == "a" and "href" in values:
            page.links.append(values["href"])
        if tag in LOADING_TAGS and values.get("src"):
            page.loads.append(values["src"])
        if tag == "link" and values.get("rel") not in ("canonical", "alternate"):
            page.loads.append(values.get("href", ""))
        if tag == "img" and not values.get("alt", "").strip():
            page.images_without_alt.append(values.get("src", ""))
        if tag == "meta" and values.get("http-equiv") == "refresh":
            page.is_redirect = True
            page.links.append(values.get("content", "").split("URL=")[-1])
        if re.fullmatch("h[1-6]", tag) and values.get("class") != "menu-title":
            page.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost open element of that name."""
        while self.open_tags and self.open_tags.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        """Keep the text that is not code."""
        if not CODE_TAGS & set(self.open_tags):
            self.page.text.append(data)


def check_site(site: Path) -> tuple[int, list[Problem]]:
    """How many pages a built site has, and everything wrong with them."""
    pages: dict[Path, Page] = {}
    for file in sorted(site.rglob("*.html")):
        parser = PageParser()
        parser.feed(file.read_text(encoding="utf-8"))
        pages[file.resolve()] = parser.page
    problems = [
        problem
        for file, page in pages.items()
        if file.name not in COMBINED
        for problem in check_page(site.resolve(), file, page, pages)
    ]
    problems += check_styles(site.resolve())
    return len(pages), problems


def check_page(site: Path, file: Path, page: Page, pages: dict[Path, Page]) -> Iterator[Problem]:
    """Everything wrong with one page."""
    name = str(file.relative_to(site))
    for element_id, count in Counter(page.ids).items():
        if count > 1:
            yield Problem(name, "duplicate id", element_id)
    for address in page.loads:
        if is_outside(address):
            yield Problem(name, "loads from elsewhere", address)
    for address in page.links + page.loads:
        problem = check_address(site, file, address, pages)
        if problem:
            yield Problem(name, problem, address)
    for source in page.images_without_alt:
        yield Problem(name, "picture without alternative text", source)
    for above, below in zip(page.headings, page.headings[1:], strict=False):
        if below > above + 1:
            yield Problem(name, "heading level skipped", f"h{above}, then h{below}")
    if not page.is_redirect and page.headings.count(1) != 1:
        yield Problem(name, "not one h1", str(page.headings.count(1)))
    for leftover in LEFTOVER.findall(" ".join(page.text)):
        yield Problem(name, "leftover markup", leftover)


def check_address(site: Path, file: Path, address: str, pages: dict[Path, Page]) -> str | None:
    """What is wrong with a link or load of a page, if anything. Links to other sites are not followed."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    # 404.html is served for any missing path, so its addresses start at the root of the site.
    start = site if file.name == "404.html" else file.parent
    path = unquote(parts.path)
    if path.startswith("/"):
        if file.name != "404.html":
            return "link from the server's root"
        path = path.lstrip("/")
    target = (start / path).resolve() if parts.path else file
    if target.is_dir():
        target = target / "index.html"
    if not target.exists():
        return "dead link"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        return "link to a place that is not on the page"
    return None


def check_published(site: Path, listed: Path) -> Iterator[Problem]:
    """Published pages that are gone without a redirect, and new pages that the list does not have yet.

    Args:
        site: the built site.
        listed: a file with the path of one page a line.
    """
    known = set(listed.read_text(encoding="utf-8").split())
    built = {str(file.relative_to(site)) for file in site.rglob("*.html") if file.name not in COMBINED}
    for page in sorted(known - built):
        yield Problem(page, "published page is gone", "name where it went under [output.html.redirect] in book.toml")
    for page in sorted(built - known):
        yield Problem(page, "new page", f"add this line to {listed.name}, so that it is never lost")


def check_styles(site: Path) -> Iterator[Problem]:
    """Loads from elsewhere, and of missing files, in style sheets."""
    for file in sorted(site.rglob("*.css")):
        for address in re.findall(r"url\(\s*['\"]?([^'\")]+)", file.read_text(encoding="utf-8")):
            name = str(file.relative_to(site))
            if is_outside(address):
                yield Problem(name, "loads from elsewhere", address)
            elif not address.startswith("data:") and not (file.parent / urlsplit(address).path).is_file():
                yield Problem(name, "dead link", address)


def is_outside(address: str) -> bool:
    """Whether an address is on another server."""
    return re.match(r"(https?:)?//", address) is not None
