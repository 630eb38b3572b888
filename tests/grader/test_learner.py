"""check, hint and solution as a learner uses them, in a terminal, in a notebook, and under nbgrader."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from grader import check, hint, solution
from grader.framework import CheckResult, Diagnosis, Outcome, PropertyResult, rendering
from grader.learner import verbs
from grader.learner.verbs import exercise_of
from grader.mutants import specimen
from grader.usage import UsageError
from tinyllm import parts
from tinyllm.kernels.runtime import triton
from tinyllm.kv_cache.allocator import BlockAllocator as Reference
from tinyllm.kv_cache.sizing import kv_bytes_per_token as reference_bytes

RIGHT_CELL = """
def kv_bytes_per_token(config, bytes_per_element):
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * bytes_per_element
"""
WRONG_CELL = RIGHT_CELL.replace("2 * ", "1 * ")


NOTEBOOK = {
    "imports": "from grader import check\nfrom tinyllm.parts import own_reason, use",
    "usage error": "check('BlockAllocator')",
    "wrong": WRONG_CELL,
    "check wrong": "result = check(kv_bytes_per_token)\nresult",
    "show again": "result",
    "right": RIGHT_CELL,
    "use before check": "use(kv_bytes_per_token)",
    "check right": "check(kv_bytes_per_token)",
    "use": "use(kv_bytes_per_token)",
    "check twice": "check(kv_bytes_per_token)\ncheck(kv_bytes_per_token)",
    "validate": "import os\nos.environ['NBGRADER_EXECUTION'] = 'validate'",
    "validate right": "check(kv_bytes_per_token)",
    "wrong again": WRONG_CELL,
    "validate wrong": "check(kv_bytes_per_token)",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What each cell of NOTEBOOK shows in a real kernel, by the cell's name."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in NOTEBOOK.values()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYLLM_WORK", str(tmp_path_factory.mktemp("work")))
        patch.delenv("NBGRADER_EXECUTION", raising=False)
        NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    return {name: cell.outputs for name, cell in zip(NOTEBOOK, notebook.cells, strict=True)}


# ---------------------------------------------------------------- in a terminal


def test_check_prints_the_tick_list_and_returns_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    result = check(reference_bytes)
    assert result
    printed = capsys.readouterr().out
    assert printed.startswith("kv_bytes_per_token: right, 2 of 2 points (seed 1)\n")
    assert printed.count("✓ right") == len(result.properties)


def test_reference_is_not_stamped() -> None:
    check(reference_bytes)
    assert not parts.stamp_file("kv_bytes_per_token").exists()


STUB_CELL = """
def kv_bytes_per_token(config, bytes_per_element):
    # YOUR CODE HERE
    raise NotImplementedError()
"""


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (STUB_CELL, "not attempted yet"),
        (WRONG_CELL, "its last check failed"),
        (RIGHT_CELL, "checked and right"),
    ],
)
def test_status_says_how_the_last_check_came_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, source: str, reason: str
) -> None:
    path = tmp_path / "cell.py"
    path.write_text(source)
    namespace: dict[str, Any] = {"__name__": "cell"}
    exec(compile(source, str(path), "exec"), namespace)
    check(namespace["kv_bytes_per_token"])
    parts.use(namespace["kv_bytes_per_token"])
    assert reason in capsys.readouterr().out.casefold()
    assert parts.own_reason("kv_bytes_per_token")[1] == reason


def test_what_could_not_be_checked_here_did_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CheckResult("kv_bytes_per_token", 1, (PropertyResult("It runs.", 1, Outcome.NOT_CHECKED),))
    monkeypatch.setattr(verbs, "source_of", lambda obj, name: STUB_CELL)
    verbs.keep_stamp(object(), result)
    path = parts.source_file("kv_bytes_per_token")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STUB_CELL)
    assert parts.own_reason("kv_bytes_per_token") == (False, "could not be checked on this machine")


# ---------------------------------------------------------------- the wrong kind of thing


def block_allocator() -> None:
    """A function where a class is wanted."""


block_allocator.__name__ = "BlockAllocator"


def grouped_gemm_tile() -> None:
    """A plain function where Triton's is wanted."""


@triton.jit
def kv_bytes_per_token() -> None:
    """Triton's where a plain one is wanted."""


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        ("BlockAllocator", r"check\(BlockAllocator\), without quotes"),
        ("nonsense", "without quotes"),
        (3, "not an int; the exercises are kv_bytes_per_token"),
        (None, "a class or a function that you wrote"),
        (Reference(2), r"not an object made from it: check\(BlockAllocator\)"),
        (block_allocator, "must be a class, and yours is a function"),
        (type("kv_bytes_per_token", (), {}), "must be a function, and yours is a class"),
        (grouped_gemm_tile, "must be a function with `@triton.jit` above it, and yours is a function"),
        (kv_bytes_per_token, "must be a function, and yours is a function with `@triton.jit` above it"),
        (type("BlockAlocator", (), {}), "no exercise is called 'BlockAlocator'. The exercises are:"),
        (lambda: 3, "a lambda has no name of its own: write it as a `def`"),
        (len, "a class or a function that you wrote"),
        (Reference.allocate, "no exercise is called 'allocate'"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_wrong_kind_of_thing_says_what_to_give(obj: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check(obj)


def test_every_exercise_knows_its_reference() -> None:
    for name, part in parts.all_parts().items():
        assert exercise_of(part.reference).name == name


# ---------------------------------------------------------------- in a notebook


def test_usage_error_is_one_line_in_a_notebook(outputs: dict[str, list[Any]]) -> None:
    (error,) = outputs["usage error"]
    assert error.traceback == [f"UsageError: {error.evalue}"]
    assert "check(BlockAllocator), without quotes" in error.evalue


def test_result_is_shown_once_and_as_html(outputs: dict[str, list[Any]]) -> None:
    (shown,) = outputs["check wrong"]
    assert shown.data["text/plain"].startswith("kv_bytes_per_token: wrong, 0 of 2 points")
    assert "kv_bytes_per_token: wrong" in shown.data["text/html"]
    assert len(outputs["check right"]) == 1


def test_result_may_be_shown_again(outputs: dict[str, list[Any]]) -> None:
    assert outputs["show again"][0].data == outputs["check wrong"][0].data
    assert len(outputs["check twice"]) == 2


def test_answer_may_be_used_once_its_check_is_right(outputs: dict[str, list[Any]]) -> None:
    assert "Changed since its last check" in outputs["use before check"][0].text
    assert "Checked and right" in outputs["use"][0].text


# ---------------------------------------------------------------- under nbgrader


def test_validation_fails_in_one_line(outputs: dict[str, list[Any]]) -> None:
    (error,) = outputs["validate wrong"]
    assert error.ename == "CheckFailed"
    assert error.traceback == [f"CheckFailed: {error.evalue}"]
    assert error.evalue.startswith("kv_bytes_per_token is wrong (")
    assert "\n" not in error.evalue
    assert all(output.output_type == "display_data" for output in outputs["validate right"])


def test_visible_check_leaves_autograding_to_the_hidden_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert check(reference_bytes) is None
    assert check("nonsense") is None
    assert capsys.readouterr().out == ""


# ---------------------------------------------------------------- hints and solutions


def test_hints_lead_on_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    hint(Reference)
    first = capsys.readouterr().out
    assert re.match(r"Hint 1 of \d: ", first)
    assert "(hint(BlockAllocator, 2) says more)" in first
    hint("BlockAllocator", 2)
    assert capsys.readouterr().out != first
    for level in (0, 99):
        with pytest.raises(UsageError, match=f"there is no hint {level}"):
            hint(Reference, level)
    with pytest.raises(UsageError, match="no exercise is called"):
        hint("Nonsense")


def test_solution_is_the_references_text(capsys: pytest.CaptureFixture[str]) -> None:
    solution(reference_bytes)
    printed = capsys.readouterr().out
    assert "def kv_bytes_per_token(config" in printed
    assert "SOLUTION" not in printed


def test_copy_without_solutions_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specimen, "project_root", lambda: tmp_path)
    for verb in (hint, solution):
        with pytest.raises(UsageError, match="not part of this copy of the course"):
            verb(Reference)


# ---------------------------------------------------------------- the picture of a result

NASTY = "<script>alert('x')</script> & \x1b[31mred\x1b[0m"


def result_with(outcome: Outcome, **changes: Any) -> CheckResult:
    item = PropertyResult(NASTY, 1, outcome, NASTY, NASTY, 0, NASTY, NASTY)
    return CheckResult("Purse", 1, (item, PropertyResult("second", 1, Outcome.RIGHT)), (Diagnosis("Name", NASTY),))


@pytest.mark.parametrize("outcome", list(Outcome))
def test_html_holds_no_tag_and_no_control_character_of_the_learners(outcome: Outcome) -> None:
    page = result_with(outcome)._repr_html_()
    assert "<script" not in page
    assert "\x1b" not in page
    assert html.escape("<script>") in page
    tags = set(re.findall(r"</?([a-z]+)", page))
    assert tags <= {"div", "p", "strong", "ul", "li", "span", "pre", "code"}
    assert page.count("<") == page.count(">")


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_a_mark_and_its_word(outcome: Outcome) -> None:
    text = str(result_with(outcome))
    assert f"{rendering.MARKS[outcome]} {outcome}" in text
    assert "\x1b" not in text


def test_only_the_first_failure_is_told_with_its_input() -> None:
    items = [
        PropertyResult(name, 1, Outcome.WRONG, message, message, 0, f"case {name}")
        for name, message in (("a", "expected 1, got 2"), ("b", "expected 1, got 2"), ("c", "expected 3, got 4"))
    ]
    text = str(CheckResult("Purse", 1, tuple(items)))
    assert "case a" in text
    assert "case b" not in text
    assert text.count("expected 1, got 2") == 1
    assert "expected 3, got 4" in text


def test_package_is_cheap_to_import() -> None:
    code = "import sys, grader; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "False"


def test_nothing_was_written_outside_the_tests_folder(tmp_path: Path) -> None:
    check(reference_bytes)
    assert parts.work_dir() == tmp_path / "work"
