"""The interactive pictures in headless Chromium: worked by keyboard, in every theme and size, and without a script."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.pages import COLOR_RULES, DESKTOP, PHONE, THEMES, choose_theme, page_of, serving, sideways, violations

from book.build import BOOK, copy_extras, install_npm_parts, write_pages
from book.figures.__main__ import main as draw_figures

pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.needs("chromium", "mdbook", "node", "checkpoint")

BOOK_TOML = """\
[book]
title = "The pictures"
language = "en"
[build]
use-default-preprocessors = false
[preprocessor.course]
command = "replaced by the build"
[output.html]
additional-css = ["theme/course.css", "theme/interactive.css", "theme/a11y.css"]
additional-js = ["theme/a11y.js", "theme/quiz.js"]
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of two pages, one of which has all pictures, one of them twice."""
    install_npm_parts()
    folder = tmp_path_factory.mktemp("pictures")
    book = folder / "book"
    shutil.copytree(BOOK / "theme", book / "theme")
    (book / "src").mkdir()
    (book / "book.toml").write_text(BOOK_TOML)
    (book / "src" / "SUMMARY.md").write_text("- [All](all.md)\n- [Next](next.md)\n")
    names = ("allocator", "batching", "merge | A caption of its own.", "experts", "allocator")
    (book / "src" / "all.md").write_text("# All\n\n" + "\n\n".join(f"{{{{#interactive {name}}}}}" for name in names))
    (book / "src" / "next.md").write_text("# Next\n")
    draw_figures(str(folder / "figures"))
    write_pages(book, folder / "figures", folder / "site")
    copy_extras(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def address(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page is served."""
    with serving(pictures, tmp_path_factory.mktemp("server")) as url:
        yield f"{url}all.html"


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pictures_are_accessible_in_every_theme(size: dict[str, Any], address: str, browser: Any) -> None:
    found = []
    with page_of(browser, size) as (page, faults):
        page.goto(address)
        page.get_by_role("button", name="To the end").click()
        page.get_by_role("button", name="Fork").first.click()
        for theme in THEMES:
            choose_theme(page, theme)
            assert sideways(page) <= 0, theme
            found += [(theme, v) for v in violations(page, None if theme == "light" else COLOR_RULES)]
    assert not found
    assert not faults


def by_keyboard(page: Any, figure: Any, name: str) -> str:
    """Press a button with the keyboard; returns what is said then."""
    button = figure.get_by_role("button", name=name)
    button.focus()
    page.keyboard.press("Enter")
    return str(figure.get_by_role("status").inner_text())


def test_the_allocator_by_keyboard(address: str, browser: Any) -> None:
    with page_of(browser, DESKTOP) as (page, faults):
        page.goto(address)
        figure = page.locator("figure[data-interactive=allocator]").first
        assert "A starts with 10 tokens. No prefix is known. Allocated: blocks 0, 1, 2." in figure.inner_text()
        assert "B shares blocks 0, 1, 2 with A" in by_keyboard(page, figure, "Fork")
        figure.get_by_role("combobox").select_option("B")
        assert "B gets a copy of it, block 3" in by_keyboard(page, figure, "Append a token")
        assert figure.locator(".block.shared").count() == 2
        assert "A B \u00b7 2 refs" in figure.locator(".block").first.inner_text()
        assert "Back in the pool: block 3" in by_keyboard(page, figure, "Free")
        figure.get_by_role("combobox").focus()
        assert "A is done" in by_keyboard(page, figure, "Free")
        assert figure.locator(".block.cached").count() == 2
        assert figure.get_by_role("button", name="Free").is_disabled()
        assert "New request" in page.evaluate("document.activeElement.textContent"), "the focus is not lost"
        assert "Prefix hit: blocks 0, 1, so 8 tokens need no computing" in by_keyboard(page, figure, "New request")
        prompt = figure.get_by_role("textbox")
        prompt.focus()
        page.keyboard.press("Control+a")
        page.keyboard.type("s")
        assert prompt.input_value() == "s", "mdBook's key for the search is a letter here"
        page.keyboard.press("Control+a")
        page.keyboard.type("a text of 24 letters, or")
        for _ in range(3):
            by_keyboard(page, figure, "New request")
        assert "Out of blocks" in figure.get_by_role("status").inner_text()
        assert "A starts with 10 tokens" in by_keyboard(page, figure, "Reset")
    assert not faults


def test_the_timelines_by_keyboard(address: str, browser: Any) -> None:
    with page_of(browser, DESKTOP) as (page, faults):
        page.goto(address)
        figure = page.locator("figure[data-interactive=batching]")
        assert "Step 1. Static batching: A computes prompt tokens 1 to 4;" in figure.get_by_role("status").inner_text()
        assert by_keyboard(page, figure, "Step").startswith("Step 2.")
        assert by_keyboard(page, figure, "Back").startswith("Step 1.")
        by_keyboard(page, figure, "To the end")
        assert captions(figure) == ["Static batching: 15 steps", "Continuous batching: 11 steps"]
        figure.get_by_label("Seats (max_num_seqs)").focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        assert page.url.endswith("all.html"), "arrow keys move the slider, not the page"
        static, continuous = captions(figure)
        assert static.removeprefix("Static") == continuous.removeprefix("Continuous"), "with six seats nobody waits"
        steps = figure.get_by_label("Steps shown")
        steps.focus()
        page.keyboard.press("Home")
        assert "Six requests are waiting" in figure.get_by_role("status").inner_text()
    assert not faults


def captions(figure: Any) -> list[str]:
    return [text.split(",")[0] for text in figure.locator("caption").all_inner_texts()]


def test_merging_by_keyboard(address: str, browser: Any) -> None:
    with page_of(browser, DESKTOP) as (page, faults):
        page.goto(address)
        figure = page.locator("figure[data-interactive=merge]")
        assert "A caption of its own." in figure.locator("figcaption").inner_text()
        before = states(figure)
        assert before["merged"] == before["all at once"]
        figure.get_by_label("The left part has").focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        moved = states(figure)
        assert moved["merged"] == before["merged"], "wherever the cut is, the result is the same"
        assert moved["left: 3 positions"] != before["left: 5 positions"]
        figure.get_by_label(re.compile("Score of position 0")).focus()
        page.keyboard.press("End")
        changed = states(figure)
        assert changed["merged"] == changed["all at once"] != before["merged"]
        assert "The common maximum is 6.000" in figure.get_by_role("status").inner_text()
        by_keyboard(page, figure, "Reset")
        assert states(figure) == before
    assert not faults


def test_routing_by_keyboard(address: str, browser: Any) -> None:
    with page_of(browser, DESKTOP) as (page, faults):
        page.goto(address)
        figure = page.locator("figure[data-interactive=experts]")
        status = figure.get_by_role("status")
        assert "20 pairs in 28 rows: 8 are padding, 29 %. 3 of 4 experts are touched" in status.inner_text()
        assert figure.locator(".block").count() == 7
        box = figure.get_by_label('token 0, "T", to expert 2')
        box.focus()
        page.keyboard.press("Space")
        assert box.is_checked()
        assert not figure.get_by_label('token 0, "T", to expert 0').is_checked(), "the first gives way"
        assert 'Token 0, "T", goes to expert 2 in place of 0.' in status.inner_text()
        assert "4 of 4 experts are touched" in status.inner_text()
        page.keyboard.press("Space")
        assert "leaves expert 2. It has 1 expert now" in status.inner_text()
        assert "19 pairs" in status.inner_text()
        assert "20 pairs in 32 rows: 12 are padding" in by_keyboard(page, figure, "Evenly")
        size = figure.get_by_label("Rows of a block")
        size.focus()
        page.keyboard.press("Home")
        assert "20 pairs in 20 rows: 0 are padding" in status.inner_text()
        tokens = figure.get_by_label("Tokens in the step")
        tokens.focus()
        page.keyboard.press("Home")
        assert "2 pairs in 2 rows" in status.inner_text()
        assert "2 of 4 experts are touched" in status.inner_text()
        assert figure.get_by_label(re.compile("token 9, ")).first.is_disabled()
        assert page.url.endswith("all.html"), "arrow keys move the slider, not the page"
    assert not faults


def states(figure: Any) -> dict[str, list[str]]:
    rows = [row.locator("th, td").all_inner_texts() for row in figure.locator("tbody tr").all()]
    return {name: numbers for name, *numbers in rows}


def test_without_a_script_and_on_paper_the_drawn_pictures_are_there(pictures: Path, browser: Any) -> None:
    with page_of(browser, DESKTOP, java_script_enabled=False) as (page, faults):
        page.goto((pictures / "all.html").as_uri())
        assert page.locator("figure.interactive svg").count() == 5
        assert all(svg.is_visible() for svg in page.locator("figure.interactive svg").all())
        assert page.locator(".stage").count() == 0
    assert not faults
    with page_of(browser, DESKTOP) as (page, faults):
        page.goto((pictures / "all.html").as_uri())
        assert page.locator(".stage").count() == 5
        assert page.locator("figure.interactive svg").first.is_hidden()
        page.emulate_media(media="print")
        assert page.locator("figure.interactive svg").first.is_visible()
        assert page.locator(".stage").first.is_hidden()
    assert not faults
