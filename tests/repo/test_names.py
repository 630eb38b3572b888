"""Unknown names: the known one that was meant is suggested wherever a name is looked up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from grader import check, hint, solution
from grader.build.course import find_day
from grader.mutation.gate import run_gate
from tinyllm import use, verbs
from tinyllm.names import closest, did_you_mean
from tinyllm.parts import resolve

KNOWN = ["BlockAllocator", "BlockTable", "day1"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BlockAlocator", "BlockAllocator"),
        ("blockallocator", "BlockAllocator"),
        ("Allocator", "BlockAllocator"),
        ("block_table", "BlockTable"),
        ("dya1", "day1"),
        ("Scheduler", None),
        ("", None),
    ],
)
def test_the_nearest_name(name: str, meant: str | None) -> None:
    assert closest(name, KNOWN) == meant
    assert did_you_mean(name, KNOWN) == (f". Did you mean {meant}?" if meant else "")


def test_no_guess_where_several_are_as_near() -> None:
    assert closest("day9", ["day0", "day1", "day2"]) is None
    assert closest("anything", []) is None


class BlockAlocator:
    """A learner's slip."""


LOOKUPS: dict[str, Callable[[], Any]] = {
    "reset": lambda: verbs.reset("day1", "BlockAlocator"),
    "use": lambda: use(BlockAlocator),
    "parts": lambda: resolve({"BlockAlocator": BlockAlocator}),
    "check": lambda: check(BlockAlocator),
    "check of a name": lambda: check("BlockAlocator"),
    "hint": lambda: hint("BlockAlocator"),
    "solution": lambda: solution("BlockAlocator"),
    "gate": lambda: run_gate(["BlockAlocator"]),
}


@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS.keys())
def test_an_unknown_exercise_or_part_suggests_the_right_one(lookup: Callable[[], Any]) -> None:
    verbs.start("day1")
    with pytest.raises(Exception, match=r"Did you mean BlockAllocator\?|check\(BlockAllocator\), without quotes"):
        lookup()


@pytest.mark.parametrize("lookup", [verbs.start, verbs.submit, verbs.update, find_day])
def test_an_unknown_day_suggests_the_right_one(lookup: Callable[[str], Any]) -> None:
    with pytest.raises(Exception, match=r"Did you mean day1\?"):
        lookup("Dya1")
