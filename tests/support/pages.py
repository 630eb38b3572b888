"""A page of the book in headless Chromium, with what goes wrong in it, and the accessibility checker."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from book.build import BOOK, QuietHandler

THEMES = ("light", "rust", "coal", "navy", "ayu")
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}

#: Rules whose verdict depends on colors; the others say the same in every theme.
COLOR_RULES = ["color-contrast", "link-in-text-block"]


@contextmanager
def serving(site: Path, top: Path) -> Iterator[str]:
    """The address of a site, served below a path, which finds links that start at the server's root."""
    (top / "course").symlink_to(site, target_is_directory=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(top)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/course/"
    server.shutdown()
    server.server_close()


@contextmanager
def page_of(browser: Any, options: dict[str, Any], **more: Any) -> Iterator[tuple[Any, list[str]]]:
    """A page in the light theme, and a list that fills with console errors, failed and outside requests."""
    context = browser.new_context(**options, **more)
    context.add_init_script("localStorage.getItem('mdbook-theme') || localStorage.setItem('mdbook-theme', 'light')")
    page = context.new_page()
    page.set_default_timeout(60_000)
    faults: list[str] = []
    page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("requestfailed", lambda r: None if was_left(r) else faults.append(f"failed: {r.url}"))
    page.on("response", lambda r: faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    page.on("request", lambda r: None if is_inside(r.url) else faults.append(f"outside: {r.url}"))
    yield page, faults
    context.close()


def was_left(request: Any) -> bool:
    """Whether a request failed only because the page was left."""
    return request.failure == "net::ERR_ABORTED"


def is_inside(address: str) -> bool:
    """Whether a request goes to this machine."""
    return address.startswith(("http://127.0.0.1:", "file:", "data:", "blob:", "about:"))


def choose_theme(page: Any, theme: str) -> None:
    """As the reader does in the menu."""
    page.evaluate("theme => document.getElementById(`mdbook-theme-${theme}`).click()", theme)
    assert theme in page.evaluate("document.documentElement.className").split()


def unfold(page: Any) -> None:
    """Open every answer: what is folded away is not checked."""
    page.evaluate("for (const details of document.querySelectorAll('details')) details.open = true")


def violations(page: Any, rules: list[str] | None = None) -> list[str]:
    """What axe-core finds on the page as it is, in all rules or in some."""
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate((BOOK / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
    options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found = page.evaluate("options => axe.run(document, options)", options)["violations"]
    return [f"{violation['id']}: {node['html'][:160]}" for violation in found for node in violation["nodes"]]


def sideways(page: Any) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
