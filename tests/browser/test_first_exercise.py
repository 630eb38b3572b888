"""In a real browser: a wrong answer is diagnosed, the right one is right, and Validate answers."""

from __future__ import annotations

import ast
import inspect

import pytest
from lab_page import LabPage
from playwright.sync_api import Page

from grader.checks import find_exercise
from grader.mutants import specimens
from tinyllm.kv_cache import sizing

pytestmark = [pytest.mark.needs("chromium", "notebooks"), pytest.mark.timeout(600)]

EXERCISE = "kv_bytes_per_token"
MISTAKE = "counts_keys_only"  # forgets that a token leaves a key and a value


def function(source: str, name: str) -> ast.FunctionDef:
    (found,) = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == name]
    return found


def as_answer(found: ast.FunctionDef) -> str:
    """The function as a learner's cell would have it."""
    found.name, found.decorator_list = EXERCISE, []
    return f"from tinyllm.config import ModelConfig\n\n\n{ast.unparse(found)}"


def wrong_answer() -> tuple[str, str]:
    """A known mistake from the course's own list: its code, and how its diagnosis begins."""
    (mutant,) = [item for item in specimens(find_exercise(EXERCISE)).mutants if item.name == MISTAKE]
    return mutant.source, mutant.text.splitlines()[0]


def right_answer() -> str:
    return as_answer(function(inspect.getsource(sizing), EXERCISE))


def test_wrong_then_right_then_validate(lab: str, page: Page) -> None:
    outside: list[str] = []
    page.on("request", lambda request: outside.append(request.url) if "//127.0.0.1:" not in request.url else None)
    notebook = LabPage(page, lab)
    notebook.run("tag", "setup")

    code, diagnosis = wrong_answer()
    notebook.run("grade_id", EXERCISE, code)
    notebook.run("grade_id", f"check-{EXERCISE}")
    notebook.expect_output("grade_id", f"check-{EXERCISE}", f"{EXERCISE}: wrong", diagnosis)

    notebook.run("grade_id", EXERCISE, right_answer())
    notebook.run("grade_id", f"check-{EXERCISE}")
    notebook.expect_output("grade_id", f"check-{EXERCISE}", f"{EXERCISE}: right", "2 of 2 points")

    answer = notebook.validate()
    assert "check(reservation_waste)" in answer, "the untouched second exercise is reported"
    assert f"check({EXERCISE})" not in answer, "the answered one is not"
    assert not [url for url in outside if not url.startswith(("data:", "blob:"))]
