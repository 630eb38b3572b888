"""Intake: what is taken from a submission, and that nothing in a file can make it raise."""

import json
import os
from pathlib import Path

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell
from small_lesson import write_course

from grader.build.course import find_day
from grader.build.notebook import notebook_text, release_notebook
from grader.build.sources import exercise_sources
from grader.pipeline.intake import MAX_OWN_CELLS, NOTE_TITLE, added_definitions, take_in
from grader.pipeline.submissions import SubmissionsError, find_submissions, student_ids
from tinyllm.verbs import MAX_SUBMISSION_BYTES

ANSWER = "def double(x):\n    return x + x"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_course(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="module")
def release(root):
    return release_notebook(find_day("day1", root))


def by_id(notebook) -> dict:
    return {cell.id: cell for cell in notebook.cells}


def copy_of(release):
    return nbformat.reads(notebook_text(release), 4)


@pytest.fixture
def hand_in(release, tmp_path):
    """Change a copy of the release with a function, and take it in."""

    def run(change=lambda notebook: None):
        notebook = copy_of(release)
        change(notebook)
        path = tmp_path / "mine.ipynb"
        path.write_text(json.dumps(notebook), encoding="utf-8")
        intake = take_in(release, path)
        nbformat.validate(intake.notebook)
        check_structure(release, intake.notebook)
        return intake

    return run


def check_structure(release, notebook) -> None:
    """Every answer and check cell of the release once, in its order, with its metadata; locked sources untouched."""
    expected = [cell for cell in release.cells if "nbgrader" in cell.metadata]
    found = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    assert [cell.id for cell in found] == [cell.id for cell in expected]
    for cell, original in zip(found, expected, strict=True):
        assert cell.metadata == original.metadata
        assert original.metadata.nbgrader["solution"] or cell.source == original.source
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


# ---------------------------------------------------------------- honest submissions


def test_an_answer_goes_through_unchanged_and_demos_and_text_are_left_out(hand_in):
    intake = hand_in(lambda nb: by_id(nb)["double"].update(source=ANSWER))
    cells = by_id(intake.notebook)
    assert cells["double"].source == ANSWER
    assert intake.notes == ()
    assert not intake.refused
    sources = [cell.source for cell in intake.notebook.cells]
    assert "from grader import check" in sources  # setup
    assert "print(BlockAllocator(3).allocate(1))" not in sources  # a demonstration
    assert all(cell.cell_type == "code" for cell in intake.notebook.cells)


def test_an_untouched_notebook_keeps_its_stubs(hand_in, root):
    cells = by_id(hand_in().notebook)
    assert cells["BlockAllocator"].source == exercise_sources("BlockAllocator", root).stub


def test_own_code_is_kept_where_it_stood(hand_in):
    def change(nb):
        where = [cell.id for cell in nb.cells].index("PrefixCache")
        nb.cells.insert(where, new_code_cell("helper = 1"))
        nb.cells.insert(where + 2, new_code_cell("after = 2"))
        nb.cells.insert(0, new_code_cell("first = 0"))
        nb.cells.append(new_markdown_cell("Thanks!"))
        nb.cells.append(new_code_cell("   "))

    sources = [cell.source for cell in hand_in(change).notebook.cells]
    assert sources[0] == "first = 0"
    assert sources.index("helper = 1") < sources.index("after = 2") < sources.index("check(PrefixCache)")
    assert sources.index("helper = 1") == sources.index("check(BlockAllocator)") + 1
    assert "Thanks!" not in sources
    assert "   " not in sources


def test_an_editor_that_drops_ids_and_metadata_changes_nothing(release, hand_in):
    def change(nb):
        by_id(nb)["double"].source = ANSWER
        nb.nbformat_minor = 0
        for cell in nb.cells:
            del cell["id"]
            keep = "nbgrader" in cell.metadata
            cell.metadata = {"nbgrader": cell.metadata["nbgrader"], "colab": {}} if keep else {"id": "abc"}

    intake = hand_in(change)
    assert by_id(intake.notebook)["double"].source == ANSWER
    assert intake.notes == ()
    assert len(intake.notebook.cells) == 1 + 6  # setup, answers, checks: nothing taken for the student's own


# ---------------------------------------------------------------- repairs


def test_of_copies_the_last_that_differs_from_the_stub_counts(release, hand_in):
    def change(nb):
        for text in (ANSWER + "  # old", ANSWER, by_id(release)["double"].source):
            copy = new_code_cell(text, metadata=by_id(nb)["double"].metadata)
            nb.cells.append(copy)

    intake = hand_in(change)
    assert by_id(intake.notebook)["double"].source == ANSWER
    assert any("more than once" in note for note in intake.notes)
    assert intake.notebook.cells[0].source.startswith(NOTE_TITLE)


def test_a_deleted_answer_cell_is_put_back_or_found_elsewhere(hand_in):
    def delete(nb):
        nb.cells = [cell for cell in nb.cells if cell.id != "double"]

    def rewrite(nb):
        delete(nb)
        nb.cells.append(new_code_cell(ANSWER))

    gone, found = hand_in(delete), hand_in(rewrite)
    assert "NotImplementedError" in by_id(gone.notebook)["double"].source
    assert any("`double` was missing" in note for note in gone.notes)
    assert by_id(found.notebook)["double"].source == ANSWER
    assert any("cell of your own" in note for note in found.notes)


def test_deleted_edited_and_copied_checks_are_restored(hand_in):
    def change(nb):
        cells = by_id(nb)
        cells["check-double"].source = "8"
        cells["check-double"].metadata.nbgrader["points"] = 100
        nb.cells.append(new_code_cell("pass", metadata=cells["check-PrefixCache"].metadata))
        nb.cells = [cell for cell in nb.cells if cell.id != "check-BlockAllocator"]

    notes = " ".join(hand_in(change).notes)
    assert "`check-double` had been changed" in notes
    assert "`check-PrefixCache` had been changed" in notes
    assert "`check-BlockAllocator` was missing" in notes


def test_a_renamed_grade_id_and_a_cell_made_text_are_still_answers(hand_in):
    def change(nb):
        cells = by_id(nb)
        cells["double"].source = ANSWER
        cells["double"].metadata.nbgrader["grade_id"] = "other"
        cells["PrefixCache"].update(cell_type="markdown", source="class PrefixCache: pass")
        for key in ("outputs", "execution_count"):
            del cells["PrefixCache"][key]

    cells = by_id(hand_in(change).notebook)
    assert cells["double"].source == ANSWER
    assert cells["PrefixCache"].source == "class PrefixCache: pass"
    assert cells["PrefixCache"].cell_type == "code"


def test_cell_metadata_of_the_student_never_goes_through(hand_in):
    def change(nb):
        for cell in nb.cells:
            cell.metadata["tags"] = ["skip-execution"]
        nb.cells.append(new_code_cell("x = 1", metadata={"tags": ["skip-execution"]}))
        nb.metadata["kernelspec"] = {"name": "evil", "display_name": "x", "language": "python"}

    notebook = hand_in(change).notebook
    assert "skip-execution" not in json.dumps(notebook)
    assert notebook.metadata.kernelspec["name"] == "python3"


def test_helpers_written_into_other_cells_are_kept_without_the_rest(hand_in):
    def change(nb):
        demo = next(cell for cell in nb.cells if cell.source.startswith("print("))
        demo.source += "\nimport math\ndef helper():\n    return math.pi\nSIZE = [1, 2]\nserver.run_for_hours()"

    own = [cell.source for cell in hand_in(change).notebook.cells if cell.id.startswith("own-")]
    assert own == ["import math\ndef helper():\n    return math.pi\nSIZE = [1, 2]"]


@pytest.mark.parametrize("mine", ["%time x = 1", "def f(:", "x = " + "(" * 5000 + ")" * 5000, "a\0b"])
def test_cells_that_do_not_parse_add_no_definitions(mine):
    assert added_definitions(mine, "x = 1") == ""


def test_too_many_own_cells_are_cut(hand_in):
    intake = hand_in(lambda nb: nb.cells.extend(new_code_cell(f"x = {i}") for i in range(MAX_OWN_CELLS + 5)))
    assert len(intake.notebook.cells) <= MAX_OWN_CELLS + 8
    assert "own cells" in intake.notes[0]


# ---------------------------------------------------------------- hostile files

UNREADABLE = {
    "nothing": b"",
    "words": b"my notebook",
    "half": b'{"nbformat": 4, "cells": [',
    "latin1": '{"nbformat": 4, "é": 1}'.encode("latin-1"),
    "list": b"[1, 2]",
    "old version": b'{"nbformat": 3, "worksheets": []}',
    "new version": b'{"nbformat": 99, "cells": []}',
    "no cells": b'{"nbformat": 4}',
    "cells of another kind": b'{"nbformat": 4, "cells": {"a": 1}}',
    "deep": b"[" * 200_000,
    "large": b" " * (MAX_SUBMISSION_BYTES + 1),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_is_no_notebook_is_refused_in_words(name, release, tmp_path):
    path = tmp_path / "mine.ipynb"
    path.write_bytes(UNREADABLE[name])
    intake = take_in(release, path)
    assert intake.refused
    assert intake.notes
    check_structure(release, intake.notebook)
    notebook_text(intake.notebook).encode()


def test_links_pipes_folders_and_nothing_are_refused(release, tmp_path):
    secret = tmp_path / "secret.ipynb"
    secret.write_text(notebook_text(release))
    (tmp_path / "link.ipynb").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "folder.ipynb").mkdir()
    for name in ("link", "pipe", "folder", "missing"):
        assert take_in(release, tmp_path / f"{name}.ipynb").refused
    assert take_in(release, None).refused


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=6,
)
grade_ids = st.sampled_from(["double", "check-double", "PrefixCache", "nothing", ""]) | junk
strange_cells = junk | st.fixed_dictionaries(
    {},
    optional={
        "cell_type": st.sampled_from(["code", "markdown", "raw"]) | junk,
        "id": grade_ids,
        "source": st.text(st.characters(), max_size=30) | st.lists(st.text(max_size=5) | junk, max_size=3) | junk,
        "metadata": st.fixed_dictionaries(
            {}, optional={"nbgrader": st.fixed_dictionaries({"grade_id": grade_ids}) | junk}
        )
        | junk,
        "outputs": junk,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(strange_cells, max_size=8), junk)
def test_no_cells_whatever_they_hold_make_intake_raise(release, tmp_path, cells, metadata):
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}))
    intake = take_in(release, path)
    assert not intake.refused
    check_structure(release, intake.notebook)
    nbformat.validate(nbformat.reads(notebook_text(intake.notebook), 4))
    notebook_text(intake.notebook).encode()  # no half surrogate pairs


# ---------------------------------------------------------------- finding them


def put(path: Path, text: str = "{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_submissions_are_found_in_both_layouts_and_under_a_downloads_name(root, tmp_path):
    day = find_day("day1", root)
    plain = put(tmp_path / "a" / "ada" / "day1_small.ipynb")
    nested = put(tmp_path / "a" / "bob" / "day1_small" / "day1_small.ipynb")
    download = put(tmp_path / "a" / "cyd" / "day1_small (1).ipynb")
    (tmp_path / "a" / "dan").mkdir()
    put(tmp_path / "a" / ".hidden" / "day1_small.ipynb")
    found = {one.student: one.path for one in find_submissions(tmp_path / "a", [day])}
    assert found == {"ada": plain, "bob": nested, "cyd": download, "dan": None}
    submitted = put(tmp_path / "b" / "submitted" / "eva" / "day1_small" / "day1_small.ipynb")
    assert [one.path for one in find_submissions(tmp_path / "b", [day])] == [submitted]


def test_a_folder_without_submissions_says_what_it_should_hold(root, tmp_path):
    day = find_day("day1", root)
    with pytest.raises(SubmissionsError, match="there is no folder"):
        find_submissions(tmp_path / "none", [day])
    put(tmp_path / "ada.ipynb")
    with pytest.raises(SubmissionsError, match=r"ada/day1_small\.ipynb"):
        find_submissions(tmp_path, [day])


def test_names_are_safe_as_files_in_csv_and_in_patterns_and_stay_apart():
    names = ["Zoë", "a*b", "a?b", "=cmd()", "-x", "Doe, Jane", "[x]", "..", "x" * 300]
    safe = [name for name, _ in student_ids([Path("/s") / name for name in names])]
    assert safe[0] == "Zoë"
    assert len(set(safe)) == len(names)
    for name in safe:
        assert name[0].isalnum() or name[0] == "_"
        assert not set(name) & set("*?[]{},;=\"'/\\\n ")
        assert len(name) <= 110
