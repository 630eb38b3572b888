"""The built pages in headless Chromium: accessibility, errors, outside loads, phones, search, quizzes, no script."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from book.build import BOOK, QuietHandler
from tinyllm.doctor import find_chromium

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.needs("chromium", "mdbook", "node", "checkpoint")

#: All five of mdBook's; the default light and dark ones in every run.
THEMES = ["light", "navy", *(pytest.param(theme, marks=pytest.mark.slow) for theme in ("rust", "coal", "ayu"))]
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def address(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the site is served, below a path, which finds links that start at the server's root."""
    top = tmp_path_factory.mktemp("server")
    (top / "course").symlink_to(site, target_is_directory=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(top)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/course/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def chapters(site: Path) -> list[str]:
    """The pages of the chapters, and the page that holds them all for printing."""
    names = sorted(path.name for path in site.glob("*.html"))
    chosen = [name for name in names if name not in ("404.html", "toc.html")]
    assert len(chosen) > 5
    return chosen


@contextmanager
def page_of(
    browser: Any, viewport: dict[str, int], theme: str = "light", **options: Any
) -> Iterator[tuple[Any, list[str]]]:
    """A page, and a list that fills with console errors, failed and outside requests."""
    context = browser.new_context(viewport=viewport, **options)
    context.add_init_script(f"localStorage.setItem('mdbook-theme', '{theme}')")
    page = context.new_page()
    page.set_default_timeout(60_000)
    faults: list[str] = []
    page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("response", lambda r: faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    page.on(
        "request",
        lambda r: (
            faults.append(f"outside: {r.url}") if "127.0.0.1" not in r.url[:20] and r.url[:5] != "data:" else None
        ),
    )
    yield page, faults
    context.close()


@pytest.mark.parametrize("theme", THEMES)
def test_no_page_has_an_accessibility_violation(theme: str, address: str, browser: Any, chapters: list[str]) -> None:
    axe = (BOOK / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    found = []
    with page_of(browser, DESKTOP, theme) as (page, faults):
        for name in chapters:
            page.goto(address + name)
            page.wait_for_load_state("load")
            assert theme in page.evaluate("document.documentElement.className")
            page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            page.evaluate(axe)
            result = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
            found += [(name, v["id"], node["html"][:120]) for v in result["violations"] for node in v["nodes"]]
    assert not found
    assert not faults


@pytest.mark.parametrize("theme", ["light", "navy"])
def test_no_page_scrolls_sideways_on_a_phone(theme: str, address: str, browser: Any, chapters: list[str]) -> None:
    with page_of(browser, PHONE, theme, is_mobile=True, has_touch=True) as (page, faults):
        for name in chapters:
            page.goto(address + name)
            page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert too_wide <= 0, name
    assert not faults


def test_search_finds_the_terms_of_the_course(address: str, browser: Any) -> None:
    with page_of(browser, DESKTOP) as (page, faults):
        page.goto(address + "index.html")
        page.keyboard.press("s")
        for term, expected in (("block table", "day1.html"), ("prefill", "day0.html"), ("preemption", "life.html")):
            page.fill("#mdbook-searchbar", "")
            page.locator("#mdbook-searchbar").press_sequentially(term)
            page.wait_for_function(
                "(page) => [...document.querySelectorAll('#mdbook-searchresults a')].some(a => a.href.includes(page))",
                arg=expected,
            )
    assert not faults


def test_a_quiz_says_right_and_wrong_with_reasons(address: str, browser: Any) -> None:
    with page_of(browser, DESKTOP) as (page, faults):
        page.goto(address + "day1.html")
        number = page.locator(".quiz form[data-number='38']")
        for answer, verdict, reason in (
            ("14", "Not yet.", "index 0"),
            ("38", "Right.", "block 9"),
            ("", "Give an answer", ""),
        ):
            number.locator("input").fill(answer)
            number.get_by_role("button", name="Check").click()
            said = number.get_by_role("status").inner_text()
            assert verdict in said
            assert reason in said
        choice = page.locator(".quiz form").first
        for index in range(choice.locator("input").count()):
            choice.locator("input").nth(index).check()
            choice.get_by_role("button", name="Check").click()
            right = choice.locator("li[data-right=true]").get_attribute("data-choice") == str(index)
            said = choice.get_by_role("status").inner_text()
            assert said.startswith("Right." if right else "Not yet.")
            assert len(said) > 30
    assert not faults


def test_the_keyboard_reaches_the_text_and_what_scrolls(address: str, browser: Any) -> None:
    with page_of(browser, DESKTOP) as (page, faults):
        page.goto(address + "life.html")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the text"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.tagName") == "MAIN"
        unreachable = "e => e.scrollWidth > e.clientWidth && e.tabIndex < 0"
        assert page.evaluate(f"[...document.querySelectorAll('pre > code')].filter({unreachable}).length") == 0
    assert not faults


def test_without_a_script_answers_and_figures_are_there(address: str, browser: Any) -> None:
    with page_of(browser, DESKTOP, java_script_enabled=False) as (page, _):
        page.goto(address + "day1.html")
        assert page.locator("figure.fig svg").first.is_visible()
        answer = page.locator(".quiz details").first
        answer.locator("summary").click()
        assert answer.locator("ul").is_visible()
