"""Whatever a learner and a new release do to a notebook, the merge loses no work: hypothesis tries combinations."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import nbformat
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell
from small_notebook import day1

from tinyllm import notebook as nb

CELLS = len(day1().cells)

#: What can happen to the cell at a place: its text changes, it goes, it is copied, or a new one comes before it.
EDITS = st.lists(
    st.tuples(st.sampled_from(["edit", "delete", "copy", "insert"]), st.integers(0, CELLS - 1)), max_size=6
)


def edited(who: str, edits: list[tuple[str, int]]) -> Any:
    """The release after some edits; texts name who wrote them, so that they can be told apart."""
    notebook = day1()
    for number, (what, place) in enumerate(edits):
        cells = notebook.cells
        if not cells:
            break
        place %= len(cells)
        text = f"{who} wrote {number}"
        if what == "edit":
            cells[place].source = text
        elif what == "delete":
            del cells[place]
        elif what == "copy" and who == "learner":  # a release repeats no grade id
            cells.insert(place, deepcopy(cells[place]))
        else:
            cells.insert(place, new_code_cell(text, id=f"{who}-{number}"))
    return notebook


def texts(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells]


@given(EDITS, EDITS, st.booleans())
def test_a_merge_loses_no_work(learners: list[tuple[str, int]], releases: list[tuple[str, int]], known: bool) -> None:
    mine, release = edited("learner", learners), edited("release", releases)
    before = deepcopy((mine, release))
    base = day1() if known else None
    merged = nb.merge(mine, base, release)
    assert (mine, release) == before, "the arguments are left as they are"

    result = merged.notebook
    nbformat.validate(result)
    ids = [cell.id for cell in result.cells]
    assert len(set(ids)) == len(ids)
    graded = [nb.key(cell) for cell in result.cells if nb.grading(cell)]
    assert graded == [nb.key(cell) for cell in release.cells if nb.grading(cell)], "each exercise once, in order"

    kept = set(texts(result))
    for cell in mine.cells:
        if cell.source.startswith("learner") and (nb.is_answer(cell) or not nb.grading(cell)):
            replaced = nb.key(cell) in merged.replaced or (not known and nb.key(cell) in ids)
            assert cell.source in kept or (replaced and not nb.is_answer(cell))
    for cell in release.cells:
        if nb.grading(cell) and not nb.is_answer(cell):
            assert cell.source in kept, "checks are the release's"


@given(EDITS, EDITS)
def test_merging_again_changes_nothing(learners: list[tuple[str, int]], releases: list[tuple[str, int]]) -> None:
    release = edited("release", releases)
    once = nb.merge(edited("learner", learners), day1(), release).notebook
    assert texts(nb.merge(once, release, release).notebook) == texts(once)


@given(EDITS, st.sampled_from(["first", "second"]))
def test_a_reset_puts_back_one_stub_and_returns_what_it_took(learners: list[tuple[str, int]], exercise: str) -> None:
    mine = edited("learner", learners)
    result, old = nb.reset(mine, day1(), exercise)
    stub = nb.answers(day1())[exercise]
    assert nb.answers(result)[exercise] == stub
    assert sum(nb.is_answer(cell) and nb.key(cell) == exercise for cell in result.cells) == 1
    took = {cell.source for cell in mine.cells if nb.is_answer(cell) and nb.key(cell) == exercise} - {stub}
    assert set(old) == took
    others = [cell.source for cell in mine.cells if nb.key(cell) != exercise]
    assert [cell.source for cell in result.cells if cell.source in others] == others or set(others) <= set(
        texts(result)
    )
