"""A wrong answer is told which mistake it makes, and only if it really is that one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_specimens
import torch
from small_exercises import PURSE, RUNNING_SUM, Purse, result_of, running_sum

from grader.framework import Case, CheckResult, Exercise, Prop
from grader.mutants import (
    Specimen,
    Specimens,
    as_cell,
    by_kind,
    cell_source,
    day_folder,
    read_specimens,
    renamed_source,
    specimens,
)
from grader.mutants import specimen as finding
from grader.mutants.diagnosis import diagnosed
from grader.running import LocalDriver, run
from grader.usage import UsageError

ALL = read_specimens(Path(small_specimens.__file__))
OF_PURSE = by_kind([item for item in ALL if item.name != "adds_nothing"])
OF_SUM = by_kind([item for item in ALL if item.name == "adds_nothing"])

SOLUTION = "from small_exercises import Purse\n"


def find(name: str) -> Specimen:
    return next(item for item in ALL if item.name == name)


def diagnosis_of(exercise: Exercise, obj: Any, known: Specimens, longest: float | None = None) -> CheckResult:
    driver = LocalDriver(exercise, obj, longest)
    return diagnosed(exercise, run(exercise, 1, driver), driver, known)


def names(obj: object) -> list[str]:
    return [item.name for item in diagnosis_of(PURSE, obj, OF_PURSE).diagnoses]


def test_specimens_are_found_by_their_own_mark() -> None:
    assert [item.name for item in OF_PURSE.mutants] == ["NeverRefuses", "KeepsWhatComesBack", "LosesTheLast"]
    assert [(item.name, item.mistake) for item in OF_PURSE.variants] == [
        ("RefusesTooLate", "NeverRefuses"),
        ("GivesToNobody", "KeepsWhatComesBack"),
        ("StartsWithOneLess", "LosesTheLast"),
    ]
    assert [item.name for item in OF_PURSE.unknown_bugs] == ["RaisesTheWrongError"]
    assert [item.name for item in OF_PURSE.alternates] == ["KeepsAList"]


def test_subclass_of_a_mutant_is_no_mutant() -> None:
    class Unmarked(find("NeverRefuses").obj):  # type: ignore[misc]
        pass

    assert finding.TAG not in vars(Unmarked)


@pytest.mark.parametrize("item", OF_PURSE.mutants, ids=lambda item: item.name)
def test_mutants_are_themselves(item: Specimen) -> None:
    assert names(item.obj) == [item.name]


@pytest.mark.parametrize("item", OF_PURSE.variants, ids=lambda item: item.name)
def test_variants_are_their_mutant(item: Specimen) -> None:
    assert names(item.obj) == [item.mistake]


def test_unknown_bug_right_answer_and_stub_get_no_diagnosis() -> None:
    class Stub:
        def __init__(self, size: int) -> None:
            raise NotImplementedError

    assert names(find("RaisesTheWrongError").obj) == []
    assert names(Purse) == []
    assert names(Stub) == []


def test_two_mistakes_that_look_alike_are_both_named() -> None:
    twins = by_kind([*OF_PURSE.mutants, Specimen("Twin", "mutant", find("RefusesTooLate").obj, Path())])
    result = diagnosis_of(PURSE, find("NeverRefuses").obj, twins)
    assert [item.name for item in result.diagnoses] == ["NeverRefuses", "Twin"]
    assert "these 2 mistakes" in str(result)


def test_diagnosis_is_told_in_the_mutants_words() -> None:
    result = diagnosis_of(PURSE, find("NeverRefuses").obj, OF_PURSE)
    assert "You hand out more than there is." in str(result)


def test_mutant_that_loops_for_ever_is_recognized() -> None:
    def loops(values: torch.Tensor) -> torch.Tensor:
        while True:
            pass

    def also_loops(values: torch.Tensor) -> torch.Tensor:
        for _ in iter(int, 1):
            pass
        return values

    known = by_kind([Specimen("loops", "mutant", loops, Path())])
    result = diagnosis_of(RUNNING_SUM, also_loops, known, longest=0.1)
    assert [item.name for item in result.diagnoses] == ["loops"]


def test_without_its_seed_a_result_cannot_be_diagnosed() -> None:
    wrong = find("NeverRefuses").obj
    with pytest.raises(ValueError, match="seed"):
        diagnosed(PURSE, result_of(PURSE, wrong).without_inputs(), LocalDriver(PURSE, wrong), OF_PURSE)


# ---------------------------------------------------------------- agreement on more than the first failure


def drive(parts: Any, case: Case) -> Any:
    return parts.double(case["x"])


def judge(case: Case, observations: Any) -> str | None:
    return None if observations == 2 * case["x"] else f"twice {case['x']} is {2 * case['x']}"


def specimen(function: Any) -> Specimen:
    function.__doc__ = "A mistake."
    return Specimen(function.__name__, "mutant", function, Path())


def wrong_at(*places: int) -> Any:
    """A function that is wrong for these arguments; its calls are counted."""

    def double(x: int) -> int:
        double.calls.append(x)  # type: ignore[attr-defined]
        return 2 * x + (x in places)

    double.calls = []  # type: ignore[attr-defined]
    return double


def doubles(fixed: list[int], drawn: list[int]) -> Exercise:
    def some(rng: Any) -> Iterator[Case]:
        yield from ({"x": x} for x in drawn)

    prop = Prop("doubles", weight=1, drive=drive, judge=judge, fixed=[{"x": x} for x in fixed], random=some)
    return Exercise("double", "function", (prop,))


def named(answer: Any, mistake: Any, exercise: Exercise) -> bool:
    return bool(diagnosis_of(exercise, answer, by_kind([specimen(mistake)])).diagnoses)


@pytest.mark.parametrize(
    ("answer", "mistake", "same"),
    [
        ((1,), (1,), True),
        ((1,), (2,), False),  # another first failure
        ((1, 3), (1, 3), True),
        ((1, 3), (1,), False),  # the same first failure, and one more
        ((1,), (1, 3), False),
        ((1, 7), (1,), True),  # a random case is not tried where a fixed one has failed
        ((7,), (7,), True),
        ((7, 9), (7,), False),
    ],
)
def test_a_mistake_is_named_if_it_agrees_on_every_case_that_is_tried(
    answer: tuple[int, ...], mistake: tuple[int, ...], same: bool
) -> None:
    assert named(wrong_at(*answer), wrong_at(*mistake), doubles([0, 1, 2, 3], [7, 8, 9])) is same


def test_of_a_mistake_that_differs_at_once_a_single_case_is_run() -> None:
    mistake = wrong_at(2)
    assert not named(wrong_at(1, 2), mistake, doubles([0, 1, 2, 3], [7, 8, 9]))
    assert mistake.calls == [1]


def test_the_answer_is_not_run_again_when_no_mistake_fits() -> None:
    answer = wrong_at(1)
    assert not named(answer, wrong_at(2), doubles([0, 1, 2, 3], []))
    assert answer.calls == [0, 1]


# ---------------------------------------------------------------- as a cell


@pytest.mark.parametrize("item", OF_PURSE.mutants + OF_PURSE.alternates, ids=lambda item: item.name)
def test_specimen_as_a_cell_behaves_as_in_its_file(item: Specimen) -> None:
    cell = as_cell(PURSE, cell_source(PURSE, item, SOLUTION), "cell")
    assert cell.__name__ == "Purse"
    expected = [(p.outcome, p.case_index) for p in result_of(PURSE, item.obj).properties]
    assert [(p.outcome, p.case_index) for p in result_of(PURSE, cell).properties] == expected


def test_cell_of_a_function_holds_its_imports_and_itself_alone() -> None:
    source = renamed_source("running_sum", find("adds_nothing"))
    assert "import torch\n" in source
    assert "def running_sum(values" in source
    for other in ("grader", "mutant", "adds_nothing", "helper_that_is_no_specimen", "NeverRefuses", "__future__"):
        assert other not in source
    assert [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)] == ["running_sum"]


def test_reference_keeps_its_name_in_a_subclass_cell() -> None:
    source = renamed_source("Purse", find("NeverRefuses"))
    assert "class Purse(Purse):" in source
    assert "import Purse" not in source  # the cell's own solution is the base class
    assert "from small_exercises import running_sum" in source


# ---------------------------------------------------------------- where they live


def test_copy_of_the_course_without_solutions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "project_root", lambda: tmp_path)
    specimens.cache_clear()
    try:
        assert specimens(PURSE) == Specimens()
        with pytest.raises(UsageError, match="not part of this copy"):
            day_folder("BlockAllocator")
    finally:
        specimens.cache_clear()


def test_running_sum_mutant_is_diagnosed() -> None:
    assert not diagnosis_of(RUNNING_SUM, running_sum, OF_SUM).diagnoses
    wrong = diagnosis_of(RUNNING_SUM, lambda values: values * 1, OF_SUM)
    assert [item.name for item in wrong.diagnoses] == ["adds_nothing"]
