"""The solved cells of exercises, as learners hand them over to `use`."""

from __future__ import annotations

from grader.build.sources import exercise_sources
from tinyllm.parts import source_file, stamp


def record_solution(name: str) -> None:
    """Record the solved cell as the learner's part, checked and right."""
    source = exercise_sources(name).solution
    source_file(name).parent.mkdir(parents=True, exist_ok=True)
    source_file(name).write_text(source, encoding="utf-8")
    stamp(name, source, right=True)
