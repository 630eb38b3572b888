"""What tests of exercises share: their names, and solved cells as learners hand them over to `use`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grader.build.sources import exercise_sources
from grader.framework import Case, Exercise, Property
from grader.mutants import Specimen
from tinyllm.parts import source_file, stamp


def id_of(value: Any) -> str | None:
    """The name of an exercise or a specimen among a test's parameters."""
    return value.name if isinstance(value, Exercise | Specimen) else None


def assert_none_is_right(item: Property, case: Case, nonsense: Sequence[Any]) -> None:
    """A property's judge accepts none of these observations; what it cannot compare, the framework calls wrong."""
    for observations in nonsense:
        try:
            verdict = item.judge(case, observations)
        except Exception:
            continue
        assert verdict, (item.sentence, observations)


def record_solution(name: str) -> None:
    """Record the solved cell as the learner's part, checked and right."""
    source = exercise_sources(name).solution
    source_file(name).parent.mkdir(parents=True, exist_ok=True)
    source_file(name).write_text(source, encoding="utf-8")
    stamp(name, source, right=True)
