"""The builder: cells cut out of the package, stubs, hidden tests, deterministic bytes, drift."""

import ast
import json
from pathlib import Path

import nbformat
import pytest
from nbgrader.validator import Validator
from small_lesson import LESSON, write_course
from typer.testing import CliRunner

from grader.build.course import CellKind, LessonError, days, find_day, find_spec
from grader.build.drift import drift
from grader.build.notebook import (
    SETUP_TAG,
    instructor_notebook,
    notebook_text,
    release_notebook,
    release_path,
    write_notebooks,
)
from grader.build.release import FORBIDDEN, hand_out
from grader.build.sources import BEGIN, END, STUB, cell_from_module, exercise_sources
from grader.cli import app, main
from tinyllm.errors import TinyLLMError
from tinyllm.kv_cache.allocator import BlockAllocator, OutOfBlocksError
from tinyllm.parts import all_parts
from tinyllm.paths import project_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_course(tmp_path)


def run_cell(source: str) -> dict:
    namespace: dict = {}
    exec(compile(source, "<cell>", "exec"), namespace)
    return namespace


# ---------------------------------------------------------------- lessons


def test_a_lesson_is_read_into_cells_and_exercises(root):
    (day,) = days(root)
    assert day.name == "day1_small"
    assert list(day.exercises) == ["BlockAllocator", "PrefixCache", "double"]
    assert day.points == 8
    kinds = [cell.kind for cell in day.cells]
    assert [kinds.count(k) for k in CellKind] == [4, 2, 1, 3, 3]
    assert find_day("day1", root) == day
    assert find_spec("double", root)[1].module == ""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("check(double)\n", "check(double)\nprint(1)\n", "a check cell holds one line"),
        ('# %% check="double"\ncheck(double)\n', "", "double has 0 of the check cell"),
        ("# <!-- head: double -->\n", "# Words.\n", "double has 0 of the head"),
        ("head: double", "head: triple", "double has 0 of the head"),
        ("# <!-- head: double -->\n", "# <!-- head: double -->\n#\n# <!-- head: nothing -->\n", "a head names nothing"),
        ('minutes="20"', 'minutes="many"', "needs minutes and difficulty"),
        ('difficulty="2"', 'difficulty="2" points="3"', "unknown option points"),
        ('exercise="double"', 'exercise="triple"', "triple has no checks"),
        ('difficulty="2"', 'difficulty="7"', "out of range"),
        ('minutes="20"', 'minuets="20"', "unknown option minuets"),
        ("setup=true", "set_up=true", "unknown option set_up"),
        ('exercise="PrefixCache"', 'exercise="Other"', "from tinyllm.<module> import Other"),
        ('exercise="double"', 'exercise="BlockAllocator"', "already an exercise BlockAllocator"),
        ("    ### BEGIN SOLUTION\n", "", "needs ### BEGIN SOLUTION"),
        ('check="BlockAllocator"\ncheck(BlockAllocator)', 'check="double"\ncheck(double)', "comes before it"),
    ],
)
def test_a_lesson_that_breaks_a_rule_is_refused_in_words(tmp_path, old, new, message):
    assert LESSON.count(old) >= 1
    root = write_course(tmp_path, LESSON.replace(old, new, 1))
    with pytest.raises(LessonError, match=message):
        days(root)


def test_unknown_names_list_the_known_ones(root):
    with pytest.raises(LessonError, match="BlockAllocator, PrefixCache, double"):
        find_spec("Nothing", root)
    with pytest.raises(LessonError, match="day1_small"):
        find_day("day9", root)
    with pytest.raises(LessonError, match="clone"):
        days(root / "elsewhere")


# ---------------------------------------------------------------- sources


def test_the_solved_cell_runs_and_behaves_as_the_reference(root):
    cell = run_cell(exercise_sources("BlockAllocator", root).solution)
    mine = cell["BlockAllocator"](3)
    assert mine.allocate(2) == [0, 1]
    with pytest.raises(OutOfBlocksError):
        mine.allocate(2)
    assert cell["BlockAllocator"] is not BlockAllocator


def test_the_stub_keeps_what_is_given_and_only_that(root):
    sources = exercise_sources("BlockAllocator", root)
    stub = run_cell(sources.stub)["BlockAllocator"]
    assert stub(3).num_free == 3  # given
    for call in (lambda: stub(3).allocate(1), lambda: stub(3).share(0), lambda: stub(3).free(0)):
        with pytest.raises(NotImplementedError):
            call()
    assert stub.allocate.__doc__ == BlockAllocator.allocate.__doc__
    assert sources.stub.count(STUB) == 3
    assert BEGIN not in sources.stub
    assert BEGIN not in sources.solution
    assert sources.marked.count(BEGIN) == sources.marked.count(END) == 3
    assert set(sources.body_lines) == {"allocate", "share", "free"}
    assert all(1 <= lines <= 25 for lines in sources.body_lines.values())


def test_the_cell_imports_what_it_needs_but_not_the_learners_own_objects(root):
    lines = exercise_sources("PrefixCache", root).stub.splitlines()
    assert lines[0] == "from __future__ import annotations"
    assert "from collections import OrderedDict" in lines
    assert "from tinyllm.kv_cache.prefix_cache import ROOT_HASH, hash_block" in lines
    head = "\n".join(lines[: lines.index("class PrefixCache:")])
    assert "BlockAllocator" not in head  # an exercise of the same day: the learner's own is in scope
    assert "part" not in head
    assert "hashlib" not in head  # used elsewhere in the module only


def test_a_stub_has_the_errors_that_its_text_promises():
    for name in ("BlockAllocator", "BlockTable", "CopyOnWrite"):
        cell = run_cell("from __future__ import annotations\n" + exercise_sources(name).stub)
        assert cell["OutOfBlocksError"] is OutOfBlocksError
    for name in all_parts():
        source = exercise_sources(name)
        assert source.stub.splitlines()[:3] == source.solution.splitlines()[:3]


def test_an_inline_solution_is_taken_from_the_lesson(root):
    sources = exercise_sources("double", root)
    assert run_cell(sources.solution)["double"](4) == 8
    assert "return 2 * x" not in sources.stub
    assert sources.body_lines == {"double": 1}


MODULE = '''\
"""A module."""

from __future__ import annotations

import math
import os.path as paths
from collections import deque
from collections.abc import Sequence as Seq

LIMIT: int = 3
other = 4


def helper() -> int:
    return 1


@some.decorator
class Thing:
    """A thing."""

    size = LIMIT

    @property
    def given(self) -> float:
        """Given."""
        return math.pi

    def f(self, x: Seq[int]) -> int:
        """Work."""

        # why this is done
        y = helper()
        return y + paths.sep
        # the last word


def after() -> None:
    """Nothing."""
    return None
'''


def spec_of(name: str, stub: tuple[str, ...] = ()):
    from grader.build.course import Spec

    return Spec(name, 1, "tinyllm.made_up", stub, 5, 1, 1.0)


def test_comments_inside_a_body_are_part_of_the_solution():
    marked = cell_from_module(MODULE, spec_of("Thing", ("f",)), ())
    inside = marked[marked.index(BEGIN) : marked.index(END)]
    assert "why this is done" in inside
    assert "the last word" in inside
    assert "after" not in marked
    assert marked.splitlines()[:8] == [
        "from __future__ import annotations",
        "",
        "import math",
        "import os.path as paths",
        "from collections.abc import Sequence as Seq",
        "",
        "from tinyllm.made_up import LIMIT, helper",
        "",
    ]
    assert "@some.decorator\nclass Thing:" in marked
    ast.parse(marked)


@pytest.mark.parametrize(("name", "stub"), [("Nothing", ()), ("Thing", ("g",)), ("helper", ())])
def test_an_exercise_that_cannot_be_cut_out_is_an_error(name, stub):
    with pytest.raises(LessonError):
        cell_from_module(MODULE, spec_of(name, stub), ())


# ---------------------------------------------------------------- notebooks


def test_the_release_holds_no_solution_no_hidden_test_and_no_output(root):
    (day,) = days(root)
    text = notebook_text(release_notebook(day))
    assert not [word for word in FORBIDDEN if word in text]
    assert "ref_counts[block_id] += 1" not in text  # a line of the solution
    assert "jupytext" not in text
    for cell in json.loads(text)["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)
        assert "<!-- head" not in "".join(cell["source"])


def test_the_instructor_notebook_is_solved_and_has_hidden_tests(root):
    (day,) = days(root)
    cells = {cell.id: cell for cell in instructor_notebook(day).cells}
    assert "ref_counts[block_id] += 1" in cells["BlockAllocator"].source
    assert "check_hidden(BlockAllocator)" in cells["check-BlockAllocator"].source
    assert cells["check-BlockAllocator"].metadata.nbgrader["points"] == 3
    assert cells["check-BlockAllocator"].metadata.nbgrader["locked"]


def test_cells_that_learners_must_keep_are_locked_and_setup_is_marked(root):
    (day,) = days(root)
    cells = {cell.id: cell for cell in release_notebook(day).cells}
    assert cells["check-double"].metadata["editable"] is False
    assert cells["double"].metadata["deletable"] is False
    assert [c.source for c in cells.values() if SETUP_TAG in c.metadata.get("tags", [])] == ["from grader import check"]


def test_bytes_and_ids_are_the_same_at_every_build_and_ids_are_unique(root):
    (day,) = days(root)
    first, second = release_notebook(day), release_notebook(day)
    assert notebook_text(first) == notebook_text(second)
    ids = [cell.id for cell in first.cells]
    assert len(set(ids)) == len(ids)  # the lesson shows the same demo cell twice
    assert notebook_text(nbformat.reads(notebook_text(first), 4)) == notebook_text(first)


def test_heads_tell_number_minutes_difficulty_and_points(root):
    text = notebook_text(release_notebook(find_day("day1", root)))
    assert "**Exercise 2: `PrefixCache`** · about 30 minutes · difficulty 4 of 5 · 4 points" in text
    assert '1 point"' in text


def test_nbgraders_validator_accepts_the_release_and_reports_the_stubs(root, monkeypatch):
    write_notebooks(root)
    path = release_path(find_day("day1", root), root)
    results = Validator().validate(str(path))
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)  # nbgrader's setenv restores the wrong name
    monkeypatch.delenv("NBGRADER_VALIDATING", raising=False)
    assert set(results) == {"failed"}  # not "changed": the checksums of the locked cells agree
    assert len(results["failed"]) == 3


# ---------------------------------------------------------------- drift


def test_a_fresh_build_has_no_drift_and_an_edit_is_named_with_its_cell(root):
    write_notebooks(root)
    assert drift(root) == []
    path = release_path(find_day("day1", root), root)
    notebook = json.loads(path.read_text())
    notebook["cells"][3]["source"] = ["pass"]
    del notebook["cells"][4]
    notebook["cells"][0]["metadata"] = {"x": 1}
    path.write_text(json.dumps(notebook))
    messages = drift(root)
    assert any("cell BlockAllocator has another text" in m and "-pass" in m for m in messages)
    assert any("cell check-BlockAllocator is missing" in m for m in messages)
    assert any("has other metadata" in m for m in messages)


def test_drift_names_missing_foreign_and_damaged_notebooks(root):
    assert "is missing" in drift(root)[0]
    write_notebooks(root)
    path = release_path(find_day("day1", root), root)
    (path.parent / "day7_old.ipynb").write_text("{}")
    assert "no lesson makes this notebook" in drift(root)[0]
    path.write_text("junk")
    assert "is not a notebook" in drift(root)[0]
    path.write_text(
        json.dumps({**json.loads(notebook_text(release_notebook(find_day("day1", root)))), "nbformat_minor": 4})
    )
    assert "layout" in drift(root)[0]


def test_building_again_writes_nothing(root):
    before = {path: path.stat().st_mtime_ns for path in write_notebooks(root)}
    assert {path: path.stat().st_mtime_ns for path in write_notebooks(root)} == before


def test_handing_out_refuses_stale_notebooks_and_never_overwrites(root, tmp_path):
    with pytest.raises(TinyLLMError, match="out of date"):
        hand_out(tmp_path / "out", root)
    write_notebooks(root)
    (copy,) = hand_out(tmp_path / "out", root)
    assert copy.read_bytes() == release_path(find_day("day1", root), root).read_bytes()
    with pytest.raises(TinyLLMError, match="exists"):
        hand_out(tmp_path / "out", root)


# ---------------------------------------------------------------- this course


def test_the_notebooks_in_the_repository_are_what_the_lessons_give():
    assert drift() == []


def test_every_exercise_of_the_course_has_short_bodies_and_a_release_without_secrets():
    for day in days():
        text = release_path(day).read_text(encoding="utf-8")
        assert not [word for word in FORBIDDEN if word in text]
        for name in day.exercises:
            assert max(exercise_sources(name).body_lines.values()) <= 25
        if day.exercises:
            assert day.points == 20


def test_the_command_line_helps_and_checks():
    runner = CliRunner()
    for command in ("build", "gate", "grade", "release", "hint", "solution"):
        result = runner.invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert "Examples" in result.output
    assert runner.invoke(app, ["build", "--check"]).exit_code == (1 if drift() else 0)
    assert project_root().joinpath("notebooks").is_dir()


def test_an_error_is_one_message_and_exit_status_1(monkeypatch, capsys, tmp_path):
    for command in (["hint", "Nothing"], ["grade", str(tmp_path / "none")], ["grade", str(tmp_path)]):
        monkeypatch.setattr("sys.argv", ["grader", *command])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 1
        captured = capsys.readouterr()
        assert captured.err.strip().startswith("error: ")
        assert "Traceback" not in captured.err
