"""Spot the bug: what is shown gives nothing away and is wrong; an attempt counts when all right solutions agree."""

from __future__ import annotations

import json
import linecache
from collections.abc import Callable
from typing import Any

import pytest

from grader import spot
from grader.checks import exercises, find_exercise
from grader.framework import Exercise
from grader.learner import spotting
from grader.learner.spotting import puzzles, record, size_of, wrong_object
from grader.mutants import specimens
from grader.running import LocalDriver, run
from grader.usage import UsageError
from tinyllm import parts

ALLOCATOR = find_exercise("BlockAllocator")
IN_PYTHON = [item for item in exercises().values() if item.kind != "kernel" and specimens(item).mutants]


def cell(source: str, name: str = "attempt") -> Any:
    """A function of a notebook cell."""
    filename = f"<cell {hash(source)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"__name__": "__main__", "spot": lambda *_: None}
    exec(compile(source, filename, "exec"), namespace)
    return namespace[name]


def attempt(body: str, argument: str = "BlockAllocator") -> Callable[[Any], Any]:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return cell(f"def attempt({argument}):\n{lines}\n\nspot({argument!r}, attempt)\n")


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "checked_right", lambda name: True)


def bug_of(mutant: str) -> int:
    return [item.name for item in specimens(ALLOCATOR).mutants].index(mutant) + 1


# ---------------------------------------------------------------- what is shown


@pytest.mark.parametrize("exercise", IN_PYTHON, ids=lambda item: item.name)
def test_every_puzzle_is_wrong_and_tells_neither_name_nor_mistake(exercise: Exercise) -> None:
    shown = puzzles(exercise)
    assert len(shown) >= 3
    for puzzle in shown:
        assert not run(exercise, 1, LocalDriver(exercise, wrong_object(exercise, puzzle)))
        assert '"""' not in puzzle.source
        assert not any(item.name in puzzle.source for item in specimens(exercise).mutants)


def test_kernels_have_puzzles_too() -> None:
    for name in ("store_kv", "paged_decode", "paged_decode_split", "paged_prefill"):
        assert all(f"def {name}(" in puzzle.source for puzzle in puzzles(find_exercise(name)))


@pytest.mark.usefixtures("solved")
def test_a_puzzle_is_shown_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    spot("BlockAllocator")
    out = capsys.readouterr().out
    assert out.startswith("Bug 1 of ")
    assert "class BlockAllocator:" in out
    assert "spot(BlockAllocator, attempt)" in out


def test_before_the_exercise_is_solved_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    spot("BlockAllocator")
    out = capsys.readouterr().out
    assert "get yours right first" in out
    assert "class" not in out


@pytest.mark.usefixtures("solved")
def test_a_copy_without_wrong_solutions_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(spotting, "puzzles", lambda exercise: ())
    spot("BlockAllocator")
    assert "no wrong solutions" in capsys.readouterr().out


@pytest.mark.usefixtures("solved")
def test_a_bug_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no bug 99"):
        spot("BlockAllocator", bug=99)


# ---------------------------------------------------------------- attempts

TAKES_TOO_MANY = (
    "pool = BlockAllocator(1)\ntry:\n    pool.allocate(2)\nexcept MemoryError:\n    pass\nreturn pool.num_free"
)


@pytest.mark.usefixtures("solved")
def test_a_right_attempt_is_recorded_and_the_next_bug_comes(capsys: pytest.CaptureFixture[str]) -> None:
    bug = bug_of("TakesSomeBeforeItFails")
    spot("BlockAllocator", attempt(TAKES_TOO_MANY), bug)
    out = capsys.readouterr().out
    assert "Right: with a right solution it returns 1, with this one 0." in out
    assert "belong to nobody" in out  # the diagnosis
    assert "a pool of 1 block: allocate(2)" in out
    (entry,) = record()["BlockAllocator"].values()
    assert entry["found"]
    assert entry["tries"] == 1
    assert "def attempt" in entry["attempt"]
    assert "spot(" not in entry["attempt"]
    longer = attempt("BlockAllocator(3)\n" + TAKES_TOO_MANY)
    spot("BlockAllocator", longer, bug)
    assert f"your smallest has {entry['size']}" in capsys.readouterr().out
    spot("BlockAllocator")
    assert not capsys.readouterr().out.startswith(f"Bug {bug} ")


@pytest.mark.usefixtures("solved")
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return BlockAllocator(3).num_free", "returns 3 with a right solution and with this one"),
        ("return BlockAllocator(3).nonsense", "raises AttributeError, too"),
        ("pool = BlockAllocator(3)\npool.free(pool.allocate(1)[0])\nreturn pool.allocate(1)", "it is a free choice"),
        ("while True:\n    pass", "does not end well either"),
        ("return helper()", "raises NameError, too"),
    ],
)
def test_an_attempt_that_shows_no_mistake_says_why(
    body: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spotting.Attempt, "time_limit", 0.2)
    spot("BlockAllocator", attempt(body))
    out = capsys.readouterr().out
    assert "Not yet" in out
    assert words in out
    (entry,) = record()["BlockAllocator"].values()
    assert entry == {"tries": 1, "found": False}


@pytest.mark.usefixtures("solved")
def test_an_error_of_the_wrong_solution_alone_counts(capsys: pytest.CaptureFixture[str]) -> None:
    body = "pool = BlockAllocator(1)\nreturn len(pool.allocate(1))"
    spot("BlockAllocator", attempt(body), bug_of("RefusesTheLastBlock"))
    assert "it returns 1, with this one it raises OutOfBlocksError" in capsys.readouterr().out


@pytest.mark.usefixtures("solved")
def test_functions_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    body = "a = torch.zeros(1), torch.zeros(())\nreturn merge_attention_states(*a, *a)"
    spot("merge_attention_states", attempt(body, "merge_attention_states"))
    assert "Bug 1 of" in capsys.readouterr().out


@pytest.mark.needs("triton")
@pytest.mark.usefixtures("solved")
def test_kernels_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    body = """k, v = torch.ones(2, 2, 2), 2 * torch.ones(2, 2, 2)
pool = torch.zeros(2, 4, 2, 2)
store_kv(k, v, pool[0], pool[1], torch.tensor([3, -1]))
return pool"""
    spot("store_kv", attempt(body, "store_kv"))
    out = capsys.readouterr().out
    assert "Right" in out or "with a right solution and with this one" in out


@pytest.mark.usefixtures("solved")
@pytest.mark.parametrize("wrong", [3, lambda allocator: 3, "attempt"])
def test_what_is_no_function_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="an attempt is a function"):
        spot("BlockAllocator", wrong)


@pytest.mark.usefixtures("solved")
def test_a_damaged_record_is_begun_again(capsys: pytest.CaptureFixture[str]) -> None:
    spotting.record_file().parent.mkdir(parents=True)
    spotting.record_file().write_text("[1")
    spot("BlockAllocator", attempt("return 1"))
    assert json.loads(spotting.record_file().read_text())["BlockAllocator"]


def test_size_counts_calls_constants_and_loops() -> None:
    assert size_of("def attempt(A):\n    'text'\n    for _ in range(3):\n        A(1).b()\n") == 6
