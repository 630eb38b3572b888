"""What the tests of the grader share: the small lesson's own exercise has checks as any other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from small_lesson import DOUBLE

from grader import checks
from grader.build import course


@pytest.fixture(autouse=True, scope="session")
def checks_of_the_small_lesson() -> Iterator[None]:
    """A lesson's exercise earns what its checks weigh, so `double` has some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course, "exercises", lambda: checks.exercises() | {DOUBLE.name: DOUBLE})
        yield
