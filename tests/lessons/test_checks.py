"""What the checks of every exercise in Python must refuse and accept, whatever the exercise."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from support.cells import assert_none_is_right, id_of

from grader.build.sources import exercise_sources
from grader.checks import exercises
from grader.framework import Exercise, Outcome
from grader.mutants import Specimen, specimens
from grader.running import LocalDriver, run
from tinyllm.kv_cache.sizing import Waste
from tinyllm.parts import all_parts

pytestmark = pytest.mark.usefixtures("one_thread")

EXERCISES = [exercise for exercise in exercises().values() if exercise.kind != "kernel"]
ALTERNATES = [(exercise, item) for exercise in EXERCISES for item in specimens(exercise).alternates]

NONSENSE: list[Any] = [
    *(None, True, 0, 1.5, float("nan"), "", "<set>", [], {}, [None], [[]], [{}], [[], []], [0] * 40, [[0] * 5] * 40),
    *(torch.zeros(0), torch.zeros(3), torch.tensor(0.0), [torch.zeros(2), torch.zeros(2)], {"steps": None}),
    *({"steps": [], "open": [], "num_free": 100}, {"steps": [{}] * 3, "open": [], "num_free": 100}),
    *({"bytes": True}, {"bytes": float("nan")}),
    *({"waste": {}}, {"type": "Waste", "waste": dict.fromkeys(Waste._fields, "1")}),
    *([{"outcome": {}}] * 40, [{"outcome": {"value": []}, "tables": {}, "owners": [], "copies": 0}] * 40),
    [{"hit": [], "outcome": {"value": []}, "owners": [], "num_free": 0, "evicted": 0}] * 40,
]


@pytest.mark.parametrize("exercise", EXERCISES, ids=id_of)
def test_the_reference_is_right_on_many_seeds(exercise: Exercise) -> None:
    reference = all_parts()[exercise.name].reference
    for seed in range(100, 125):
        assert run(exercise, seed, LocalDriver(exercise, reference)), seed


@pytest.mark.parametrize(("exercise", "item"), ALTERNATES, ids=id_of)
def test_alternates_are_right_on_many_seeds(exercise: Exercise, item: Specimen) -> None:
    for seed in range(200, 210):
        assert run(exercise, seed, LocalDriver(exercise, item.obj)), seed


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # a tensor where a dict should be
@pytest.mark.parametrize("exercise", EXERCISES, ids=id_of)
def test_no_nonsense_is_right(exercise: Exercise) -> None:
    for item in exercise.properties:
        case = max(item.cases(random.Random(0)), key=lambda case: len(str(case)))
        assert_none_is_right(item, case, NONSENSE)


@pytest.mark.parametrize("exercise", EXERCISES, ids=id_of)
def test_an_answer_that_does_nothing_earns_nothing_for_it(exercise: Exercise) -> None:
    """With any one of the learner's functions doing nothing the exercise is not right, whatever it returns."""
    reference = all_parts()[exercise.name].reference
    for name in exercise_sources(exercise.name).body_lines:
        for value in (None, 0, False, True, [], (), (None, None), ([], [])):

            def nothing(*args: Any, value: Any = value) -> Any:
                return value

            answer = type(exercise.name, (reference,), {name: nothing}) if exercise.kind == "class" else nothing
            result = run(exercise, 1, LocalDriver(exercise, answer, longest=0.2))  # some of them never end
            assert not result, (name, value)
            assert result.outcome is not Outcome.NOT_ATTEMPTED
