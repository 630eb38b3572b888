"""The build: planted faults stop it, the real site builds, and every link and example in it is good."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from book.build import BuildError, find_mdbook, write_pages
from book.figures.style import FIGURES, svg
from book.sitecheck import check_site

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


def build_small(project: Path, chapter: str) -> Path:
    """Run mdBook over a book of one chapter."""
    (project / "book" / "book.toml").write_text(BOOK_TOML)
    (project / "book" / "src" / "SUMMARY.md").write_text("- [One](one.md)\n- [Other](other.md)\n")
    (project / "book" / "src" / "one.md").write_text(chapter)
    write_pages(project / "book", project / "figures", project / "site")
    return project / "site"


@pytest.mark.needs("mdbook")
@pytest.mark.parametrize(
    "fault",
    [
        "{{#object sample.py:Gone}}",
        "{{#figure gone | A figure | Caption}}",
        "{{#figure boxes | | Caption}}",
        "{{#number result.json:gone}}",
        "{{#quiz gone}}",
        "{{#notebook gone}}",
        "[dead](gone.md)",
    ],
)
def test_a_planted_fault_stops_the_build_with_chapter_and_line(
    fault: str, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BuildError, match="no page was written"):
        build_small(project, f"# One\n\nText.\n\n{fault}\n")
    assert "book/src/one.md:5: " in capfd.readouterr().err
    assert not list(project.glob("site/*.html"))


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
        ("<h1>A</h1><style></style>", None),
    ],
)
def test_the_check_finds_each_kind_of_problem(html: str, kind: str | None, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(html)
    _, problems = check_site(tmp_path)
    assert [problem.kind for problem in problems] == ([kind] if kind else [])


def test_the_check_reads_style_sheets(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text('a{src:url("https://example.org/f.woff2")} b{src:url("gone.woff2")}')
    _, problems = check_site(tmp_path)
    assert sorted(problem.kind for problem in problems) == ["dead link", "loads from elsewhere"]


# ---------------------------------------------------------------- the real site


@pytest.mark.needs("mdbook", "node", "checkpoint")
def test_the_real_site_builds_and_is_clean(site: Path) -> None:
    pages, problems = check_site(site)
    assert not problems
    assert pages >= len(CHAPTERS)
    for chapter in CHAPTERS:
        assert (site / f"{chapter.stem}.html").is_file()


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
    used = set(re.findall(r"\{\{#figure (\w+)", text))
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
