"""Every submission of the corpus ends with exactly the mark that its code deserves, and harms nobody."""

from __future__ import annotations

import json
import re
import sqlite3

import pytest

from grader.marks.record import Status
from hostile.book import CLASS, DAY, FULL, FUNCTION, Hostile
from hostile.cheating import cheating
from hostile.conftest import CORPUS, SEED, Graded
from hostile.misbehavior import misbehavior
from hostile.structure import structure
from hostile.variety import variety

pytestmark = [
    pytest.mark.timeout(900),  # the fixture grades the whole corpus
    pytest.mark.needs("bwrap"),
]

BOMBS = [one for one in misbehavior.makers if one.make.__code__.co_names.count("bomb")]

#: The only tags of a feedback page; everything else in it is text.
HARMLESS = {
    *("!DOCTYPE", "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "span", "strong", "code"),
    *("pre", "table", "tr", "th", "td", "ul", "li", "details", "summary", "a"),
}


def names(one: Hostile) -> str:
    return one.make.__name__


def test_bombs_go_off_and_only_inside_limits(graded):
    assert len(BOMBS) >= 8
    for bomb in BOMBS:
        printed = " ".join(cell.printed + cell.error for cell in graded.of(bomb).cells)
        assert "nothing holds this" not in printed, bomb
        left_out = any("left out" in cell.error or "memory" in cell.error for cell in graded.of(bomb).cells)
        assert "armed" in printed or left_out, bomb


def test_the_corpus_is_as_large_and_as_varied_as_it_says():
    assert len(CORPUS) >= 45
    assert len({one.student for one in CORPUS}) == len(CORPUS)
    assert all(one.make.__doc__ for one in CORPUS)
    assert [len(part.makers) >= 15 for part in (structure, misbehavior, cheating, variety)] == [True] * 4


@pytest.mark.parametrize("hostile", CORPUS, ids=names)
def test_it_gets_the_mark_that_its_code_deserves(graded: Graded, hostile: Hostile):
    record = graded.of(hostile)
    earned = {name: points for name, (points, _) in record.points.items()}
    assert earned == hostile.points, [(r.outcome, r.properties[0].message) for r in record.results.values()]
    assert str(record.status) in hostile.statuses
    assert record.status is not Status.FAILED


@pytest.mark.parametrize("hostile", CORPUS, ids=names)
def test_its_page_says_what_happened_and_runs_and_hides_nothing(graded: Graded, hostile: Hostile):
    record = graded.of(hostile)
    page = graded.page(record.student)
    assert hostile.words in page
    tags = re.findall(r"<[^>]*>", page)
    assert {tag.strip("</>").split()[0] for tag in tags} <= HARMLESS
    assert not [tag for tag in tags if re.search(r"\bon\w+=|src=|javascript:|href=\"(?!#)", tag, re.IGNORECASE)]
    assert "Content-Security-Policy" in page
    assert str(SEED) not in page
    assert "smallest failing input" not in page
    assert not re.search(r"765432[1-9]", page)  # what `inputs_in_its_error` makes of an input


def test_no_cheat_has_read_anything(graded):
    for hostile in cheating.makers:
        told = " ".join(cell.printed + cell.error for cell in graded.of(hostile).cells)
        assert "STOLEN" not in told, hostile
    assert graded.heard == []


@pytest.mark.parametrize("what", ["submissions", "home", "temporary", "shared memory", "course", "mounts", "processes"])
def test_nothing_outside_is_changed_or_left(graded, what):
    assert graded.after[what] == graded.before[what]


def test_nothing_that_is_not_ours_is_in_the_output_folder(graded):
    for path in graded.out.rglob("*"):
        assert path.name != "hostile-was-here"
        assert not path.is_symlink()
    assert not list(graded.out.parent.glob("escaped*"))
    assert {path.name for path in graded.out.parent.iterdir()} == {"class", "results", "home", "tmp", "class.toml"}


def test_the_gradebook_and_the_tables_show_the_same_marks(graded):
    with sqlite3.connect(graded.out / "gradebook.db") as database:
        assert database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall() == []
    scores = {row["student_id"]: float(row["score"]) for row in graded.rows("grades.csv")}
    totals = {row["student"]: float(row["total"]) for row in graded.rows("students.csv")}
    assert scores == totals
    points: dict[str, float] = {}
    for row in graded.rows("marks.csv"):
        student = row["student"].lstrip("'")
        points[student] = points.get(student, 0) + float(row["points"])
    assert points == {name: record.total for name, record in graded.records.items()}


def test_lateness_costs_what_the_class_file_says_and_nobody_else_pays(graded):
    rows = {row["student"]: row for row in graded.rows("students.csv")}
    late = rows.pop("handed_in_late")
    assert (late["earned"], late["days_late"], late["late_penalty"], late["total"]) == ("5", "2", "1", "4")
    assert {row["late_penalty"] for row in rows.values()} == {"0"}


def test_records_tell_the_level_of_the_sandbox_and_hold_no_seed(graded):
    for path in (graded.out / "results").rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        assert str(SEED) not in text
        record = json.loads(text)
        ran = record["status"] not in ("missing", "refused")
        assert record["sandbox"] == ("bubblewrap" if ran else "")


def test_endless_printing_is_cut(graded):
    largest = max(path.stat().st_size for path in (graded.out / "autograded").rglob("*.ipynb"))
    assert largest < 1_000_000


def test_the_exercises_are_those_of_the_corpus():
    assert {name: spec.points for name, spec in DAY.exercises.items()} == FULL == {FUNCTION: 2.0, CLASS: 3.0}
