"""What the tests of the grader share: the small lessons' own exercises have checks as any other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from small_lesson import DOUBLE

from grader import checks
from grader.build import course


@pytest.fixture(autouse=True, scope="session")
def checks_of_the_small_lesson() -> Iterator[None]:
    """A lesson's exercise earns what its checks weigh, so `double` has some, and `twice` in the second lesson too."""
    own = {name: replace(DOUBLE, name=name) for name in ("double", "twice")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course, "exercises", lambda: checks.exercises() | own)
        yield
