"""Day 3 in the sandbox: ranks are threads there, and nothing in the course routes under another name."""

from __future__ import annotations

import pytest
from grading import points_of, records_of

from grader.build.course import find_day
from grader.build.sources import exercise_sources
from grader.marks.record import Record, Status

DAY = find_day("day3")

#: A router that is another one of the course, with a bias of nothing.
LEAN_ON = """
import torch
from tinyllm.experts.routing import biased_topk_router

def topk_router(router_logits, top_k, norm_topk_prob):
    return biased_topk_router(router_logits, top_k, norm_topk_prob, torch.zeros(router_logits.shape[1]))
"""

#: A rank without rows that takes no part.
LEAVES = """
def dispatch_all_to_all(permuted, counts, group=None):
    if not len(permuted):
        return permuted, counts, [], []
    raise RuntimeError("nobody came")
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    """The marks of a small class."""
    right = {name: exercise_sources(name).solution for name in DAY.exercises}
    answers = {
        "perfect": right,
        "untouched": {},
        "leaning": {**right, "topk_router": LEAN_ON, "dispatch_all_to_all": LEAVES},
    }
    return records_of(tmp_path_factory.mktemp("day3"), DAY, answers)


@pytest.mark.needs("triton")
def test_right_answers_earn_all_points(records: dict[str, Record]) -> None:
    assert records["perfect"].status is Status.GRADED
    assert points_of(records["perfect"]) == {name: spec.points for name, spec in DAY.exercises.items()}


def test_stubs_earn_nothing(records: dict[str, Record]) -> None:
    assert records["untouched"].total == 0


def test_a_wrong_answer_costs_its_own_exercise_only(records: dict[str, Record]) -> None:
    lost = dict.fromkeys(("topk_router", "dispatch_all_to_all"), 0.0)
    assert points_of(records["leaning"]) == {**points_of(records["perfect"]), **lost}
