"""The gate lets a sound exercise pass, and catches each way in which one can be unsound."""

from __future__ import annotations

import io
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_specimens
import torch
from rich.console import Console
from small_exercises import PURSE, RUNNING_SUM, GivesBack, Purse, running_sum

from grader.build.sources import ExerciseSources
from grader.framework import Case, Exercise, Outcome, outcome_of
from grader.mutants import Specimen, Specimens, by_kind, read_specimens
from grader.mutation import gate
from grader.mutation.gate import Prover, run_gate
from grader.mutation.gate_report import GateReport, Row
from grader.usage import UsageError

ALL = [item for item in read_specimens(Path(small_specimens.__file__)) if item.name != "adds_nothing"]
KNOWN = by_kind(ALL)
STUB = """
class Purse:
    def __init__(self, size):
        self.left = size

    def take(self, count):
        raise NotImplementedError("your code here")

    def give(self, count):
        raise NotImplementedError("your code here")
"""
SOURCES = ExerciseSources(
    name="Purse",
    day="day1_purses",
    points=2,
    minutes=5,
    difficulty=1,
    solution="from small_exercises import Purse\n",
    marked="",
    stub=STUB,
    body_lines={"take": 3, "give": 1},
)
TWO_SEEDS = (1, 2)


def report(
    sources: ExerciseSources = SOURCES, known: Specimens = KNOWN, reference: Any = Purse, exercise: Any = PURSE
) -> GateReport:
    return GateReport((Prover(exercise, TWO_SEEDS, sources, known, reference).prove(),))


def renamed(which: str, **changes: Any) -> Specimen:
    return replace(next(item for item in ALL if item.name == which), **changes)


def test_sound_exercise_passes_with_all_its_counts() -> None:
    sound = report()
    assert sound, sound.problems
    assert sound.rows[0].tried == {
        "right": 4,
        "stub": 2,
        "mutants": 6,
        "variants": 6,
        "unknown": 2,
        "alternates": 2,
        "seeds": 7,
        "form": 20,
    }
    assert sound.rows[0].passed == sound.rows[0].tried
    assert sound.num_checked == 49


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reference": renamed("NeverRefuses").obj}, "the reference is wrong"),
        ({"sources": replace(SOURCES, solution=STUB)}, "the solution as a cell is not attempted"),
        ({"sources": replace(SOURCES, stub=SOURCES.solution)}, 'stub is not "not attempted"'),
        ({"sources": replace(SOURCES, stub=STUB.replace("NotImplementedError", "ValueError", 1))}, "stub is not"),
        ({"sources": replace(SOURCES, body_lines={"take": 26})}, "take asks for 26 lines"),
        ({"known": replace(KNOWN, mutants=KNOWN.mutants[:2])}, "2 mutants; there should be 3 to 16"),
        ({"known": replace(KNOWN, variants=KNOWN.variants[1:])}, "mutant NeverRefuses has no variant"),
        ({"known": replace(KNOWN, unknown_bugs=())}, "no unknown bug"),
        ({"known": replace(KNOWN, alternates=())}, "no alternate"),
        ({"known": replace(KNOWN, alternates=KNOWN.unknown_bugs)}, "alternate RaisesTheWrongError is wrong"),
        ({"known": replace(KNOWN, mutants=(*KNOWN.mutants, renamed("KeepsAList")))}, "KeepsAList is right"),
        (
            {"known": replace(KNOWN, mutants=(*KNOWN.mutants, renamed("RefusesTooLate")))},
            "is diagnosed as NeverRefuses, RefusesTooLate and not as NeverRefuses",
        ),
        (
            {"known": replace(KNOWN, variants=(renamed("RefusesTooLate", mistake="LosesTheLast"),))},
            "RefusesTooLate is diagnosed as NeverRefuses and not as LosesTheLast",
        ),
        (
            {"known": replace(KNOWN, unknown_bugs=(renamed("RefusesTooLate"),))},
            "RefusesTooLate is diagnosed as NeverRefuses and not as nothing",
        ),
        (
            {"known": replace(KNOWN, alternates=(renamed("KeepsAList", name="NotThere"),))},
            "does not run as a cell",
        ),
    ],
)
def test_unsound_exercise_is_caught(changes: dict[str, Any], words: str) -> None:
    unsound = report(**changes)
    assert not unsound
    assert any(words in problem for problem in unsound.problems), unsound.problems


def test_mistakes_that_are_alike_for_a_reason_are_let_through() -> None:
    twin = renamed("RefusesTooLate", kind="mutant", mistake="")
    mutants = (
        replace(KNOWN.mutants[0], alike=(twin.name,)),
        *KNOWN.mutants[1:],
        replace(twin, alike=("NeverRefuses",)),
    )
    problems = report(known=replace(KNOWN, mutants=mutants)).problems
    assert not [problem for problem in problems if "diagnosed" in problem]


def passes_by_luck(values: torch.Tensor) -> torch.Tensor:
    """You are wrong where the last value is below 0."""
    return values.cumsum(0) + (len(values) == 7 and bool(values[-1] < 0))


def test_marks_that_depend_on_the_seed_are_caught() -> None:
    lucky = Specimen("passes_by_luck", "mutant", passes_by_luck, Path(__file__))
    sources = replace(SOURCES, name="running_sum", solution="from small_exercises import running_sum\n")
    known = Specimens(mutants=(lucky,))
    row = Prover(RUNNING_SUM, (1, 2, 3, 4), sources, known, running_sum)
    assert "passes_by_luck" in row.seed_dependent(lucky)
    assert "a fixed case must decide it" in row.seed_dependent(lucky)
    always = Specimen("always", "mutant", lambda values: values.cumsum(0) + 1, Path(__file__))
    assert row.seed_dependent(always) == ""


def test_what_a_fixed_case_decides_is_run_once() -> None:
    sizes = []

    class Counted(Purse):
        def __init__(self, size: int) -> None:
            sizes.append(size)
            super().__init__(size - (size == 1))

    exercise = Exercise("Purse", "class", (OneCase(),))
    prover = Prover(exercise, (1, 2, 3), SOURCES, KNOWN, Counted)
    assert {prover.marked(Counted, seed).properties[0].fixed for seed in (1, 2, 3)} == {True}
    assert sizes == [1]
    assert {prover.marked(Purse, seed).properties[0].outcome for seed in (1, 2, 3)} == {Outcome.RIGHT}


class OneCase(GivesBack):
    """A fixed case, then one of each seed."""

    def fixed_cases(self) -> list[Case]:
        return [{"size": 1}]

    def random_cases(self, rng: random.Random) -> list[Case]:
        return [{"size": rng.randint(2, 9)}]

    def drive(self, parts: Any, case: Case) -> Any:
        return outcome_of(lambda: parts.Purse(case["size"]).take(1))


@pytest.mark.needs("triton")
def test_the_work_can_be_shared_by_processes() -> None:
    seen: list[str] = []
    names = ["kv_bytes_per_token", "merge_attention_states"]
    shared = run_gate(names, (1,), seen.append, jobs=2)
    alone = run_gate(names, (1,))
    assert [row.exercise for row in shared.rows] == names
    assert sorted(seen) == sorted(names)
    assert [(row.tried, row.passed) for row in shared.rows] == [(row.tried, row.passed) for row in alone.rows]


def test_mutant_without_words_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KNOWN.mutants[0].obj, "__doc__", None)
    assert "Purse: mutant NeverRefuses has no docstring to be its diagnosis" in report().problems


@pytest.mark.parametrize(
    ("cases", "words"),
    [
        (lambda self, rng: iter(()), "has no case"),
        (lambda self, rng: iter([{"size": random.random(), "asked": [1]}]), "other cases for the same seed"),
        (lambda self, rng: iter([{"size": 1, "asked": {1: 2}}]), "do not survive the wire"),
    ],
)
def test_cases_that_are_no_fixed_data_are_caught(cases: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(PURSE.properties[0]), "random_cases", cases)
    prover = Prover(PURSE, TWO_SEEDS, SOURCES, KNOWN, Purse)
    prover.prove_form()
    assert any(words in problem for problem in prover.row.problems)


def test_gate_without_exercises_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "exercises", dict)
    empty = run_gate()
    assert not empty
    assert empty.problems == ["the gate found no exercise to check"]
    assert not run_gate([])


def test_unknown_exercise_is_an_error() -> None:
    with pytest.raises(UsageError, match="BlockAllocator"):
        run_gate(["BlockAlocator"])


def test_table_shows_counts_and_marks_what_failed() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report().table())
    console.print(report(reference=renamed("NeverRefuses").obj).table())
    text = console.export_text(clear=False)
    assert re.search(r"Purse +4 +2 +6 +6 +2 +2 +7 +20", text)
    assert "2/4" in text
    console.print(GateReport((Row("a name of 18 chars"),)).table())
    assert "…" not in console.export_text()


@pytest.fixture(autouse=True)
def importable_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells import the small exercises by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
