"""The build: planted faults stop it, the real site builds, and every link and example in it is good."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from book import build
from book.build import BuildError, find_mdbook, write_pages
from book.figures.style import FIGURES, svg
from book.finish import finish_pages
from book.preprocessor.interactive import PICTURES
from book.sitecheck import check_published, check_site

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "book" / "src"
CHAPTERS = sorted(path for path in SRC.glob("*.md") if path.name != "SUMMARY.md")

BOOK_TOML = """\
[book]
title = "A small book"
[build]
create-missing = false
use-default-preprocessors = false
[preprocessor.course]
command = "replaced by the build"
[output.html]
"""


def build_small(project: Path, chapter: str, settings: str = BOOK_TOML) -> Path:
    """Run mdBook over a book of one chapter."""
    (project / "book" / "book.toml").write_text(settings)
    (project / "book" / "src" / "SUMMARY.md").write_text("- [One](one.md)\n- [Other](other.md)\n")
    (project / "book" / "src" / "one.md").write_text(chapter)
    write_pages(project / "book", project / "figures", project / "site")
    return project / "site"


@pytest.mark.needs("mdbook", "node")
@pytest.mark.parametrize(
    "fault",
    [
        "{{#object sample.py:Gone}}",
        "{{#figure gone | A figure | Caption}}",
        "{{#figure boxes | | Caption}}",
        "{{#number result.json:gone}}",
        "{{#quiz gone}}",
        "{{#notebook gone}}",
        "{{#solution gone}}",
        "{{#interactive gone}}",
        "{{#term gone}}",
        "{{#include sample.py}}",
        "![](boxes.svg)",
        "> [!HINT]",
        "$\\frac{1$",
        "$$\\notacommand$$",
        "[dead](gone.md)",
    ],
)
def test_a_planted_fault_stops_the_build_with_chapter_and_line(
    fault: str, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build.install_npm_parts()
    with pytest.raises(BuildError, match="no page was written"):
        build_small(project, f"# One\n\nText.\n\n{fault}\n")
    assert "book/src/one.md:5: " in capfd.readouterr().err
    assert not list(project.glob("site/*.html"))


@pytest.mark.needs("mdbook")
def test_front_matter_is_asked_for_where_the_book_says_so(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    strict = BOOK_TOML.replace("[output.html]", "front-matter = true\n[output.html]")
    with pytest.raises(BuildError, match="no page was written"):
        build_small(project, "# One\n", strict)
    assert "book/src/one.md:1: no front matter" in capfd.readouterr().err


@pytest.mark.needs("mdbook")
def test_a_removed_page_without_a_redirect_stops_the_build(project: Path) -> None:
    listed = project / "pages.txt"
    listed.write_text("404.html\nindex.html\none.html\nother.html\nold.html\n")
    site = build_small(project, "# One\n")
    with pytest.raises(BuildError, match=r"old\.html: published page is gone: name where it went"):
        build.check_pages(site, listed)
    moved = f'{BOOK_TOML}[output.html.redirect]\n"old.html" = "other.html"\n'
    assert build.check_pages(build_small(project, "# One\n", moved), listed) == 7
    lost = moved.replace("other.html", "gone.html")
    with pytest.raises(BuildError, match=r"old\.html: dead link: gone\.html"):
        build.check_pages(build_small(project, "# One\n", lost), listed)


@pytest.mark.needs("mdbook")
def test_a_dead_fragment_is_found_on_the_built_pages(project: Path) -> None:
    site = build_small(project, "# One\n\n[there](other.md#nowhere) and [there](other.md#other)\n")
    _, problems = check_site(site)
    kinds = {(problem.kind, problem.what) for problem in problems if problem.page == "one.html"}
    assert ("link to a place that is not on the page", "other.html#nowhere") in kinds
    assert not any(what == "other.html#other" for _, what in kinds)


@pytest.mark.parametrize(
    ("html", "kind"),
    [
        ('<h1>A</h1><a href="gone.html">x</a>', "dead link"),
        ('<h1>A</h1><a href="/a.html">x</a>', "link from the server's root"),
        ('<h1>A</h1><a href="#x">x</a>', "link to a place that is not on the page"),
        ('<h1>A</h1><p id="x"></p><p id="x"></p>', "duplicate id"),
        ('<h1>A</h1><script src="https://cdn.example.org/x.js"></script>', "loads from elsewhere"),
        ('<h1>A</h1><img src="a.html" alt=" ">', "picture without alternative text"),
        ("<h1>A</h1><h3>B</h3>", "heading level skipped"),
        ("<h1>A</h1><h1>B</h1>", "not one h1"),
        ("<h1>A</h1><p>{{#object x}}</p>", "leftover markup"),
        ("<h1>A</h1><summary>When is `free` called?</summary>", "leftover markup"),
        ("<h1>A</h1><p>It writes *its own* token.</p>", "leftover markup"),
        ("<h1>A</h1><p>2 * 3 * 4, <code>`a` *b*</code></p>", None),
        ("<h1>A</h1><style></style>", None),
    ],
)
def test_the_check_finds_each_kind_of_problem(html: str, kind: str | None, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(html)
    _, problems = check_site(tmp_path)
    assert [problem.kind for problem in problems] == ([kind] if kind else [])


def test_a_published_page_may_move_but_not_go(tmp_path: Path) -> None:
    site, listed = tmp_path / "site", tmp_path / "pages.txt"
    (site / "days").mkdir(parents=True)
    for page in ("one.html", "days/two.html", "print.html"):
        (site / page).write_text("<h1>A</h1>")
    listed.write_text("one.html\ndays/two.html\n")
    assert not list(check_published(site, listed))
    listed.write_text("one.html\nold.html\n")
    problems = {(problem.page, problem.kind) for problem in check_published(site, listed)}
    assert problems == {("old.html", "published page is gone"), ("days/two.html", "new page")}
    (site / "old.html").write_text('<meta http-equiv="refresh" content="0; URL=days/two.html">')
    assert [problem.page for problem in check_published(site, listed)] == ["days/two.html"]
    (site / "old.html").write_text('<meta http-equiv="refresh" content="0; URL=gone.html">')
    _, problems_of_pages = check_site(site)
    assert ("dead link", "gone.html") in {(problem.kind, problem.what) for problem in problems_of_pages}


def test_the_check_reads_style_sheets(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text('a{src:url("https://example.org/f.woff2")} b{src:url("gone.woff2")}')
    _, problems = check_site(tmp_path)
    assert sorted(problem.kind for problem in problems) == ["dead link", "loads from elsewhere"]


# ---------------------------------------------------------------- what is put into the pages

PAGE = "<html><head><title>One &amp; two - Book</title></head><body><main><h1>One</h1>{}</main></body></html>"


def test_pages_get_tags_and_license_and_the_print_page_its_answers_open(tmp_path: Path) -> None:
    (tmp_path / "days").mkdir()
    for page in ("index.html", "days/one.html", "print.html"):
        (tmp_path / page).write_text(
            PAGE.format("<details><summary>Q</summary>A</details><details open>B</details><th></th>")
        )
    (tmp_path / "toc.html").write_text("<body></body>")
    finish_pages(tmp_path, "Book", 'Says "much".', "https://example.org/course/")
    one = (tmp_path / "days" / "one.html").read_text()
    assert '<meta property="og:title" content="One &amp; two - Book">' in one
    assert 'content="Says &quot;much&quot;."' in one
    assert '<meta property="og:image" content="https://example.org/course/social-card.png">' in one
    assert '<link rel="canonical" href="https://example.org/course/days/one.html">' in one
    assert one.index("CC BY 4.0") < one.index("</main>")
    assert one.count("<details open") == 1
    assert "<td></td>" in one
    assert 'content="https://example.org/course/"' in (tmp_path / "index.html").read_text()
    assert (tmp_path / "print.html").read_text().count("<details open>") == 2
    assert (tmp_path / "toc.html").read_text() == "<body></body>"
    assert (tmp_path / "social-card.png").read_bytes().startswith(b"\x89PNG")


def test_without_an_address_the_card_is_named_beside_the_page(tmp_path: Path) -> None:
    (tmp_path / "days").mkdir()
    (tmp_path / "days" / "one.html").write_text(PAGE.format(""))
    finish_pages(tmp_path, "Book", "Text.", None)
    one = (tmp_path / "days" / "one.html").read_text()
    assert 'content="../social-card.png"' in one
    assert "canonical" not in one


def test_mdbook_is_told_where_pages_and_sources_will_be() -> None:
    told = build.publishing("https://owner.example.org/course/", "https://example.org/owner/course/")
    assert told == {
        "MDBOOK_OUTPUT__HTML__SITE_URL": "/course/",
        "MDBOOK_OUTPUT__HTML__GIT_REPOSITORY_URL": "https://example.org/owner/course",
        "MDBOOK_OUTPUT__HTML__EDIT_URL_TEMPLATE": "https://example.org/owner/course/edit/main/book/{path}",
    }
    assert build.publishing(None, None) == {}


def test_another_mdbook_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "mdbook"
    other.write_text("#!/bin/sh\necho mdbook v0.5.4\n")
    monkeypatch.setattr(build, "find_program", lambda name: str(other))
    with pytest.raises(BuildError, match="not the mdBook that this book is made for"):
        find_mdbook()


# ---------------------------------------------------------------- the real site


@pytest.mark.timeout(900)  # where no solved notebook is in the cache, they are run first
@pytest.mark.needs("mdbook", "node", "checkpoint")
def test_the_real_site_builds_and_is_clean(site: Path) -> None:
    pages, problems = check_site(site)
    assert not problems
    assert pages >= len(CHAPTERS)
    for chapter in CHAPTERS:
        assert (site / f"{chapter.stem}.html").is_file()


@pytest.mark.needs("mdbook", "node", "checkpoint")
def test_two_builds_are_the_same_byte_for_byte(site: Path) -> None:
    before = {path.relative_to(site): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    build.build()
    after = {path.relative_to(site): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    assert before.keys() == after.keys()
    assert [path for path in before if before[path] != after[path]] == []


@pytest.mark.needs("mdbook", "node", "checkpoint")
def test_solutions_have_pages_that_no_search_finds(site: Path) -> None:
    (index,) = site.glob("searchindex-*.js")
    text = index.read_text(encoding="utf-8")
    (addresses,) = re.findall(r'"doc_urls":\[(.*?)\]', text)
    assert '"day1.html#' in addresses
    assert "solutions/" not in addresses
    for lesson in (ROOT / "solutions").glob("day*/lesson.py"):
        name = lesson.parent.name
        page = (site / "solutions" / f"{name}.html").read_text(encoding="utf-8")
        assert "HIDDEN TESTS" not in page


@pytest.mark.needs("mdbook", "node", "checkpoint")
def test_notebooks_can_be_downloaded_as_they_are(site: Path) -> None:
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    for notebook in notebooks:
        assert (site / "notebooks" / notebook.name).read_bytes() == notebook.read_bytes()


@pytest.mark.needs("checkpoint")
def test_every_figure_is_used_and_drawn_the_same_each_time() -> None:
    import book.figures.__main__ as drawing

    drawing.load_all()
    text = "".join(chapter.read_text(encoding="utf-8") for chapter in CHAPTERS)
    used = set(re.findall(r"\{\{#figure (\w+)", text)) | {picture.still for picture in PICTURES.values()}
    assert used == set(FIGURES)
    for name, draw in FIGURES.items():
        assert svg(draw) == svg(draw), name


@pytest.mark.parametrize("chapter", [path for path in CHAPTERS if ">>> " in path.read_text(encoding="utf-8")])
@pytest.mark.needs("checkpoint")
def test_examples_in_the_text_print_what_they_say(chapter: Path) -> None:
    blocks = re.findall(r"^```python\n(>>> .*?)^```", chapter.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, chapter.name, str(chapter), 0)
    runner = doctest.DocTestRunner(verbose=False)
    messages: list[str] = []
    runner.run(example, out=messages.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(messages)


def test_set_up_says_what_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    setup = (SRC / "setup.md").read_text(encoding="utf-8")
    commands = re.findall(r"^```sh\n(.*?)^```", setup, re.DOTALL | re.MULTILINE)
    lines = [line for block in commands for line in block.splitlines()]
    lines += re.findall(r"`((?:make|tinyllm) [^`]+)`", setup)
    assert len(lines) > 10
    missing = [line for line in lines if line not in readme]
    assert not missing


@pytest.mark.needs("mdbook")
def test_mdbook_is_the_version_that_the_book_is_made_for() -> None:
    assert find_mdbook()
