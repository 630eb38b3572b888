"""Solved notebooks: what their pages show, and that they are run once for each state of their sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from book import build, solutions
from book.preprocessor.solution_pages import pictures, solution_items
from grader.build.course import days
from grader.build.notebook import instructor_notebook
from tinyllm.paths import project_root

PNG = "iVBORw0KGgo="
SOLVED = """\
def double(x):
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION"""
CHECK = """\
check(double)
### BEGIN HIDDEN TESTS
from grader.hidden import check_hidden
check_hidden(double)
### END HIDDEN TESTS"""


def data(**kinds: str) -> dict[str, Any]:
    return new_output("display_data", {kind.replace("_", "/"): text for kind, text in kinds.items()})


def page(tmp_path: Path, *cells: Any) -> str:
    """The page of a notebook with these code cells after its heading."""
    return solved_page(tmp_path, "Words.", *cells)


def solved_page(tmp_path: Path, words: str, *cells: Any) -> str:
    """The page of a notebook whose first cell says `words`."""
    heading = {"cell_type": "markdown", "source": ["# Day 9: the end\n", "\n", f"{words}\n"], "metadata": {}}
    file = tmp_path / "day9_the_end.ipynb"
    file.write_text(json.dumps({"cells": [heading, *cells]}))
    part, item = solution_items(tmp_path, project_root())
    assert part == {"PartTitle": "Solutions"}
    chapter = item["Chapter"]
    assert chapter["path"] == "solutions/day9_the_end.md"
    assert chapter["name"] == "Day 9, solved"
    return str(chapter["content"])


def test_the_page_shows_answers_and_no_hidden_tests(tmp_path: Path) -> None:
    outputs = [data(text_plain="double: right"), data(text_plain="hidden: right")]
    text = page(tmp_path, new_code_cell(SOLVED), new_code_cell(CHECK, outputs=outputs))
    assert text.startswith("# Day 9, solved\n\n> [!IMPORTANT]")
    assert "\nWords.\n" in text
    assert "{{#notebook day9_the_end}}" in text
    assert "```python\ndef double(x):\n    return 2 * x\n```" in text
    assert "```python\ncheck(double)\n```" in text
    assert "double: right" in text
    assert "hidden" not in text.casefold()
    assert "SOLUTION" not in text


def test_a_link_to_the_book_as_it_is_served_stays_in_the_site(tmp_path: Path) -> None:
    text = solved_page(tmp_path, "Read [Day 1](http://localhost:3000/day1.html).")
    assert "Read [Day 1](../day1.md)." in text


def test_outputs_are_shown_by_their_kind(tmp_path: Path) -> None:
    outputs = [
        new_output("stream", name="stdout", text="\x1b[1mbold\x1b[0m ```\n"),
        new_output("stream", name="stderr", text="a warning"),
        data(text_html="<table>\n<tr><td>1</td></tr></table>", text_plain="a table"),
        data(text_html="<pre>x</pre>", text_plain="plain words"),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "  0%|"}),
    ]
    text = page(tmp_path, new_code_cell("print()", outputs=outputs))
    assert '<div class="output">\n\n````text\nbold ```\n````\n\n</div>' in text
    assert '<div class="output table-wrapper"><table> <tr><td>1</td></tr></table></div>' in text
    assert "```text\nplain words\n```" in text
    for left_out in ("a warning", "a table", "<pre>", "0%|", "\x1b"):
        assert left_out not in text


def test_pictures_say_what_they_show_and_are_written_under_their_names(tmp_path: Path) -> None:
    drawn = [new_code_cell(source, outputs=[data(image_png=PNG)]) for source in ("plots.pool({})", "draw()")]
    text = page(tmp_path, *drawn)
    names = [name for name, _ in pictures(tmp_path / "day9_the_end.ipynb")]
    assert names == ["day9_the_end-1.png", "day9_the_end-2.png"]
    first, second = (text.split(name)[1].split('alt="')[1].split('"')[0] for name in names)
    assert first == what_plots_pool_says()
    assert second == "The picture that the code above draws."
    assert [content for _, content in pictures(tmp_path / "day9_the_end.ipynb")] == [b"\x89PNG\r\n\x1a\n"] * 2


def what_plots_pool_says() -> str:
    from tinyllm import plots

    return (plots.pool.__doc__ or "").splitlines()[0]


@pytest.mark.needs("notebooks")
def test_a_notebook_that_does_not_run_says_which(tmp_path: Path) -> None:
    broken = new_notebook(cells=[new_markdown_cell("# Day 9: the end"), new_code_cell("1 / 0")])
    with pytest.raises(solutions.NotebookError, match=r"(?s)of Day 9: the end does not run:.*ZeroDivisionError"):
        solutions.run(broken, str(tmp_path))


# ---------------------------------------------------------------- the cache


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first lines of the notebooks that were run; no kernel runs them."""
    seen: list[str] = []

    def run(notebook: Any, work: str) -> Any:
        seen.append(notebook.cells[0].source.splitlines()[0])
        return notebook

    monkeypatch.setattr(solutions, "run", run)
    return seen


def test_notebooks_run_once_for_each_state_of_their_sources(
    tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = solutions.executed_notebooks(tmp_path)
    assert len(runs) == len(days())
    assert solutions.executed_notebooks(tmp_path) == first
    assert len(runs) == len(days())
    monkeypatch.setattr(solutions, "source_hash", lambda: "changed")
    second = solutions.executed_notebooks(tmp_path)
    assert len(runs) == 2 * len(days())
    assert list(tmp_path.iterdir()) == [second]
    assert sorted(path.stem for path in second.iterdir()) == sorted(day.name for day in days())


def test_one_notebook_missing_runs_them_all_in_one_folder(tmp_path: Path, runs: list[str]) -> None:
    found = solutions.executed_notebooks(tmp_path)
    (found / f"{days()[-1].name}.ipynb").unlink()
    solutions.executed_notebooks(tmp_path)
    assert len(runs) == 2 * len(days())


def test_cells_that_are_not_the_lessons_are_not_kept(tmp_path: Path) -> None:
    day = days()[0]
    notebook = instructor_notebook(day)
    own = len(notebook.cells)
    notebook.cells.append(new_code_cell("report()", id="report"))
    solutions.keep(day.name, notebook, tmp_path)
    (kept,) = tmp_path.rglob("*.ipynb")
    cells = json.loads(kept.read_text())["cells"]
    assert len(cells) == own
    assert "report()" not in kept.read_text()


def test_the_hash_follows_code_models_and_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solutions, "ROOT", tmp_path)
    hashes = []
    for name in (
        "tinyllm/a.py",
        "grader/b/c.py",
        "solutions/day1/lesson.py",
        "data/checkpoints/t/model.bin",
        "constraints.txt",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        for text in ("one", "two"):
            file.write_text(text)
            solutions.source_hash.cache_clear()
            hashes.append(solutions.source_hash())
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "chapter.md").write_text("no source of a notebook")
    solutions.source_hash.cache_clear()
    hashes.append(solutions.source_hash())
    solutions.source_hash.cache_clear()
    assert len(set(hashes)) == 10
    assert hashes[-1] == hashes[-2]


# ---------------------------------------------------------------- publishing


def test_the_workflow_builds_as_the_makefile_does_and_publishes_what_was_built(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = project_root()
    workflow = yaml.safe_load((root / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["build"]["steps"]
    (command,) = [step["run"] for step in steps if "run" in step]
    assert command.startswith("make book BOOK_ARGS=")
    assert "book.build $(BOOK_ARGS)" in (root / "Makefile").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        build.main(["--help"])
    known = capsys.readouterr().out
    for option in [word.strip('"') for word in command.replace("=", " ").split() if word.strip('"').startswith("--")]:
        assert option in known
    paths = [step["with"]["path"] for step in steps if "path" in step.get("with", {})]
    assert paths == [str(path.relative_to(root)) for path in (solutions.CACHE, build.OUT / "site")]
