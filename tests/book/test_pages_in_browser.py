"""The built pages in headless Chromium: accessibility, errors, outside loads, phones, search, quizzes, no script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.pages import (
    COLOR_RULES,
    DESKTOP,
    PHONE,
    THEMES,
    choose_theme,
    page_of,
    serving,
    sideways,
    unfold,
    violations,
)

from book.build import BOOK

pytest.importorskip("playwright.sync_api")

pytestmark = [pytest.mark.needs("chromium", "mdbook", "node", "checkpoint"), pytest.mark.timeout(900)]

SIZES = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")]


@pytest.fixture(scope="module")
def address(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the site is served, below a path."""
    with serving(site, tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def pages(site: Path) -> list[str]:
    """Every page that a reader can come to: chapters, solutions, the one for printing."""
    found = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    listed = (BOOK / "pages.txt").read_text(encoding="utf-8").split()
    assert set(listed) <= set(found)
    redirects = [name for name in found if 'http-equiv="refresh"' in (site / name).read_text(encoding="utf-8")]
    return [name for name in found if name not in ("toc.html", "404.html", *redirects)]


def publish_404(page: Any, site: Path) -> None:
    """Serve the page for missing addresses as it would be built with `--address`: it names its place by itself."""
    text = (site / "404.html").read_text(encoding="utf-8")
    assert '<base href="/">' in text
    page.route(
        "**/404.html", lambda route: route.fulfill(body=text.replace('<base href="/">', '<base href="/course/">'))
    )


@pytest.mark.parametrize("size", SIZES)
def test_every_page_is_accessible_in_every_theme(
    size: dict[str, Any], address: str, site: Path, browser: Any, pages: list[str]
) -> None:
    """Every rule once on each page, and those about colors in the other themes too.

    The print page holds what the others hold; on it and on phones colors are checked in one light and one dark theme.
    """
    found = []
    with page_of(browser, size) as (page, faults):
        publish_404(page, site)
        for name in [*pages, "404.html"]:
            page.goto(address + name)
            unfold(page)
            for theme in THEMES:
                choose_theme(page, theme)
                assert sideways(page) <= 0, (name, theme)
                if theme in ("light", "navy") or (size is DESKTOP and name != "print.html"):
                    rules = None if theme == "light" else COLOR_RULES
                    found += [(name, theme, violation) for violation in violations(page, rules)]
            choose_theme(page, "light")
    assert not found
    assert not faults


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", THEMES)
def test_every_rule_in_every_theme_and_size(
    theme: str, size: dict[str, Any], address: str, site: Path, browser: Any, pages: list[str]
) -> None:
    found = []
    with page_of(browser, size) as (page, faults):
        publish_404(page, site)
        for name in [*pages, "404.html"]:
            page.goto(address + name)
            unfold(page)
            choose_theme(page, theme)
            found += [(name, violation) for violation in violations(page)]
    assert not found
    assert not faults


def terms() -> list[str]:
    """What a reader of this course would search for: the terms of the glossary, and where some must be found."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((BOOK / "src").glob("*.md")))
    return [name.strip() for name in re.findall(r"^\{\{#define ([^|}]+)", text, re.MULTILINE)]


FOUND = "word => [...document.querySelectorAll('#mdbook-searchresults a')].some(a => a.href.includes(word))"


def test_search_finds_the_terms_of_the_course(address: str, browser: Any) -> None:
    wanted = [("block table", "day1.html"), ("prefill", "day0.html"), ("preemption", "life.html")]
    wanted += [(term, "glossary.html") for term in terms()]
    with page_of(browser, DESKTOP) as (page, faults):
        page.goto(address + "index.html")
        page.keyboard.press("s")
        bar = page.locator("#mdbook-searchbar")
        for term, expected in wanted:
            bar.fill(term[:-1])
            bar.press_sequentially(term[-1])  # a key tells mdBook that there is something to look for
            page.wait_for_function(FOUND, arg=expected)
            assert not page.evaluate(FOUND, "solutions/"), "the answers are not found"
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


def test_the_print_page_has_every_answer_open(address: str, browser: Any) -> None:
    with page_of(browser, DESKTOP) as (page, faults):
        page.goto(address + "print.html")
        assert page.locator("details").count() > 20
        assert page.locator("details:not([open])").count() == 0
        assert "not found" in page.goto(address + "nowhere.html", wait_until="commit").status_text.lower()
    assert [fault for fault in faults if "nowhere" not in fault and "404" not in fault] == []


# ---------------------------------------------------------------- from a folder, and without a script


def test_every_page_works_from_a_folder(site: Path, browser: Any, pages: list[str]) -> None:
    with page_of(browser, DESKTOP) as (page, faults):
        for name in pages:
            page.goto((site / name).as_uri())
            assert page.locator("main h1").first.is_visible()
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("s")
        page.locator("#mdbook-searchbar").press_sequentially("prefill")
        page.wait_for_function(FOUND, arg="day0.html")
    assert not faults


@pytest.mark.parametrize("size", SIZES)
def test_without_a_script_everything_can_be_read(
    size: dict[str, Any], site: Path, browser: Any, pages: list[str]
) -> None:
    with page_of(browser, size, java_script_enabled=False) as (page, faults):
        for name in pages:
            page.goto((site / name).as_uri())
            assert page.locator("main h1").first.is_visible()
            for figure in page.locator("figure.fig svg").all():
                assert figure.is_visible()
        page.goto((site / "day0.html").as_uri())
        assert page.locator("math >> visible=true").count()
        page.goto((site / "day1.html").as_uri())
        answer = page.locator(".quiz details").first
        answer.locator("summary").click()
        assert answer.locator("ul").is_visible()
        assert page.locator("a[href='notebooks/day1_paged_kv_cache.ipynb']").first.is_visible()
        page.locator("a[rel~=next] >> visible=true").first.click()
        assert not page.url.endswith("day1.html")
    assert not faults
