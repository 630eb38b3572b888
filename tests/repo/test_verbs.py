"""Start, reset, update and submit, with what learners do to notebooks in between: edit, copy, delete, damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, output_from_msg
from small_notebook import STUB, answer_cell, cell, day1

from tinyllm import notebook as nb
from tinyllm import parts, verbs
from tinyllm.errors import WorkspaceError
from tinyllm.files import write_text

ANSWER = "def first():\n    return 1"


@pytest.fixture
def mine(clone: Path, work: Path) -> Path:
    """The learner's copy of day 1, with the first exercise answered."""
    path = verbs.start("day1").path
    save(path, answered())
    return path


def answered() -> Any:
    notebook = day1()
    cell(notebook, "a-first").source = ANSWER
    return notebook


def save(path: Path, notebook: Any) -> None:
    path.write_text(nb.write(notebook))


def release(clone: Path, notebook: Any) -> None:
    save(clone / "notebooks/day1_small.ipynb", notebook)


def sources(path: Path) -> list[str]:
    return [c.source for c in nb.read(path).cells]


# ---------------------------------------------------------------- start


def test_start_copies_once_and_names_the_exercises(clone: Path, work: Path) -> None:
    started = verbs.start("day1")
    assert started == verbs.Started(work / "day1_small.ipynb", True, ("first", "second"))
    started.path.write_text("{}")
    assert not verbs.start("day1").fresh
    assert started.path.read_text() == "{}"


# ---------------------------------------------------------------- reset


def test_reset_puts_the_stub_back_and_keeps_the_answer(mine: Path, work: Path) -> None:
    done = verbs.reset("day1", "first")
    (kept,) = done.kept
    assert kept.parent == work / "answers_aside/day1_small"
    assert kept.read_text() == ANSWER + "\n"
    assert sources(mine) == [c.source for c in day1().cells]


def test_reset_leaves_every_other_cell_alone(mine: Path) -> None:
    notebook = answered()
    notebook.cells.insert(3, new_code_cell("my = 'own cell'", id="mine"))
    cell(notebook, "a-second").source = "def second(): return 2"
    save(mine, notebook)
    verbs.reset("day1", "first")
    after = nb.read(mine)
    assert cell(after, "mine").source == "my = 'own cell'"
    assert cell(after, "a-second").source == "def second(): return 2"
    assert [c.id for c in after.cells] == [c.id for c in notebook.cells]


def test_every_old_answer_is_kept_when_reset_is_repeated(mine: Path, work: Path) -> None:
    for version in range(3):
        notebook = answered()
        cell(notebook, "a-first").source = f"version = {version}"
        save(mine, notebook)
        verbs.reset("day1", "first")
    kept = {p.read_text() for p in (work / "answers_aside").rglob("*.py")}
    assert kept == {"version = 0\n", "version = 1\n", "version = 2\n"}


def test_reset_of_a_stub_keeps_nothing(mine: Path, work: Path) -> None:
    assert verbs.reset("day1", "second").kept == ()
    assert not (work / "answers_aside").exists()


def test_reset_takes_the_recorded_part_back_and_keeps_it(mine: Path, work: Path) -> None:
    for recorded, files in (("def first():\n    return 'recorded'", 2), (ANSWER, 1)):
        save(mine, answered())
        write_text(parts.source_file("first"), recorded)
        parts.stamp("first", recorded, right=True)
        done = verbs.reset("day1", "first")
        assert done.recorded
        assert recorded + "\n" in {path.read_text() for path in done.kept}
        assert len(done.kept) == files
        assert parts.own_reason("first") == (False, "no answer recorded")
        assert not parts.stamp_file("first").exists()
    assert not verbs.reset("day1", "first").recorded


def test_reset_brings_a_deleted_cell_back_to_its_place(mine: Path) -> None:
    notebook = answered()
    notebook.cells = [c for c in notebook.cells if c.id != "a-second"]
    save(mine, notebook)
    verbs.reset("day1", "second")
    assert [c.id for c in nb.read(mine).cells] == [c.id for c in day1().cells]


def test_reset_of_a_copied_cell_keeps_both_answers_and_leaves_one_graded_cell(mine: Path, work: Path) -> None:
    notebook = answered()
    copy = answer_cell("first", "def first():\n    return 'copy'")
    copy.id = "copy"
    notebook.cells.append(copy)
    save(mine, notebook)
    assert len(verbs.reset("day1", "first").kept) == 2
    after = nb.read(mine)
    assert [c.id for c in after.cells if nb.is_answer(c) and nb.key(c) == "first"] == ["a-first"]
    assert "nbgrader" not in cell(after, "copy").metadata


def test_reset_of_an_unknown_exercise_lists_the_known_ones(mine: Path) -> None:
    before = mine.read_text()
    with pytest.raises(WorkspaceError, match="first, second"):
        verbs.reset("day1", "third")
    assert mine.read_text() == before


# ---------------------------------------------------------------- update


def test_update_without_a_new_release_changes_nothing(mine: Path, work: Path) -> None:
    before = mine.read_text()
    done = verbs.update("day1")
    assert done.merge is None
    assert mine.read_text() == before
    assert not (work / "backups").exists()


def test_update_carries_answers_edits_and_own_cells(clone: Path, mine: Path) -> None:
    notebook = answered()
    cell(notebook, "demo-first").source = "print(first(), 'with my edit')"
    cell(notebook, "title").source = "# Day 1, my edit of what the release changes too"
    notebook.cells.insert(4, new_code_cell("my = 'own cell'", id="mine"))
    save(mine, notebook)
    before = mine.read_text()

    new = day1()
    cell(new, "title").source = "# Day 1, second edition"
    cell(new, "a-second").source += "  # a better stub"
    cell(new, "c-first").source = "check(first, again=True)"
    new.cells.insert(1, new_markdown_cell("New text", id="new"))
    release(clone, new)
    done = verbs.update("day1")

    assert done.merge is not None
    assert done.backup is not None
    assert done.merge.carried == ("first",)
    assert done.merge.own_cells == 1
    assert done.merge.replaced == ("title",)
    assert done.backup.read_text() == before
    after = nb.read(mine)
    assert [c.id for c in after.cells] == ["title", "new", "a-first", "c-first", "demo-first", "mine"] + [
        c.id for c in new.cells[5:]
    ]
    assert cell(after, "a-first").source == ANSWER
    assert cell(after, "a-second").source == STUB.format(name="second") + "  # a better stub"
    assert cell(after, "c-first").source == "check(first, again=True)"
    assert cell(after, "demo-first").source == "print(first(), 'with my edit')"
    assert cell(after, "title").source == "# Day 1, second edition"
    assert verbs.update("day1").merge is None, "a second update has nothing to do"


def test_an_answer_to_an_exercise_that_is_gone_stays_as_a_plain_cell(clone: Path, mine: Path) -> None:
    new = day1()
    new.cells = [c for c in new.cells if "first" not in c.id]
    release(clone, new)
    done = verbs.update("day1")
    assert done.merge is not None
    assert done.merge.own_cells == 1
    after = nb.read(mine)
    (kept,) = [c for c in after.cells if c.source == ANSWER]
    assert "nbgrader" not in kept.metadata
    assert [c.id for c in after.cells if c.id != kept.id] == [c.id for c in new.cells]


def test_a_cell_that_the_learner_deleted_comes_back(clone: Path, mine: Path) -> None:
    notebook = answered()
    notebook.cells = [c for c in notebook.cells if c.id not in ("c-first", "a-second")]
    save(mine, notebook)
    new = day1()
    cell(new, "title").source = "# Second edition"
    release(clone, new)
    verbs.update("day1")
    assert [c.id for c in nb.read(mine).cells] == [c.id for c in new.cells]


@pytest.mark.parametrize("damage", [None, "{", "[]"])
def test_update_without_the_old_release_still_loses_nothing(
    clone: Path, mine: Path, work: Path, damage: str | None
) -> None:
    pristine = work / ".releases/day1_small.ipynb"
    pristine.unlink()
    if damage is not None:
        pristine.write_text(damage)
    notebook = answered()
    notebook.cells.append(new_code_cell("my = 'own cell'", id="mine"))
    save(mine, notebook)
    new = day1()
    cell(new, "title").source = "# Second edition"
    release(clone, new)
    verbs.update("day1")
    after = nb.read(mine)
    assert cell(after, "a-first").source == ANSWER
    assert cell(after, "mine").source == "my = 'own cell'"
    assert cell(after, "title").source == "# Second edition"


# ---------------------------------------------------------------- submit


def test_submit_writes_one_file_without_outputs(mine: Path, work: Path) -> None:
    notebook = answered()
    message = {"header": {"msg_type": "stream"}, "content": {"name": "stdout", "text": "secret\n"}}
    cell(notebook, "demo-first").outputs = [output_from_msg(message)]
    cell(notebook, "demo-first").execution_count = 7
    save(mine, notebook)
    before = mine.read_text()
    done = verbs.submit("day1")
    assert done == verbs.Submission(work / "submit/day1_small.ipynb", ("first", "second"), ("second",))
    assert "secret" not in done.path.read_text()
    handed_in = nb.read(done.path)
    assert [c.source for c in handed_in.cells] == [c.source for c in notebook.cells]
    assert [c.metadata for c in handed_in.cells] == [c.metadata for c in notebook.cells]
    assert mine.read_text() == before, "the learner's notebook is as it was"


def test_a_stub_with_only_blanks_added_is_no_answer(mine: Path) -> None:
    notebook = day1()
    cell(notebook, "a-first").source += "   \n\n"
    notebook.cells = [c for c in notebook.cells if c.id != "a-second"]
    save(mine, notebook)
    assert verbs.submit("day1").unanswered == ("first", "second")


def test_a_submission_that_is_too_large_says_so(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "MAX_SUBMISSION_BYTES", 1000)
    with pytest.raises(WorkspaceError, match="without its outputs"):
        verbs.submit("day1")


# ---------------------------------------------------------------- damaged notebooks

DAMAGED = {
    "empty": "",
    "cut off": '{"cells": [',
    "binary": "\x00\x01",
    "a list": "[]",
    "a number": "3",
    "no cells": '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
    "cells is a string": '{"cells": "x", "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
    "a cell is a number": '{"cells": [1], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
    "from the future": '{"cells": [], "nbformat": 99, "nbformat_minor": 0, "metadata": {}}',
    "nested too deep": "[" * 100_000,
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("verb", ["reset", "update", "submit"])
def test_a_damaged_notebook_is_named_and_left_as_it_is(clone: Path, mine: Path, verb: str, text: str) -> None:
    mine.write_text(text)
    new = day1()
    cell(new, "title").source = "# Second edition"
    release(clone, new)
    arguments = ("day1", "first") if verb == "reset" else ("day1",)
    with pytest.raises(WorkspaceError, match=r"day1_small\.ipynb is not a readable notebook"):
        getattr(verbs, verb)(*arguments)
    assert mine.read_text() == text


@pytest.mark.parametrize("metadata", [1, "x", [], {"grade_id": 3}, {"grade_id": None, "solution": True}, {}])
def test_odd_grading_metadata_is_no_answer_cell(mine: Path, metadata: Any) -> None:
    notebook = answered()
    cell(notebook, "demo-first").metadata["nbgrader"] = metadata
    save(mine, notebook)
    assert verbs.submit("day1").unanswered == ("second",)
    verbs.reset("day1", "first")


def test_an_old_notebook_format_is_understood(mine: Path) -> None:
    mine.write_text(nbformat.writes(nbformat.convert(answered(), 3), version=3))
    assert json.loads(mine.read_text())["nbformat"] == 3
    assert verbs.submit("day1").unanswered == ("second",)


@pytest.mark.parametrize("verb", ["reset", "update", "submit"])
def test_a_missing_notebook_says_how_to_get_it(clone: Path, verb: str) -> None:
    arguments = ("day1", "first") if verb == "reset" else ("day1",)
    with pytest.raises(WorkspaceError, match="tinyllm start day1"):
        getattr(verbs, verb)(*arguments)
