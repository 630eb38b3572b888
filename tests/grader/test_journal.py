"""The journal, and gradings that are cut off by kill -9: what comes out is what an undisturbed one gives."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

import pytest
from grading import DAY, SEED, gradebook_rows, hand_in, options, said_aloud

from grader.checks import find_exercise
from grader.marks.record import Status, read_records
from grader.mutants import cell_source, specimens
from grader.pipeline.example_class import answers_of_class, submission
from grader.pipeline.grade import grade
from grader.pipeline.journal import Journal, State
from grader.pipeline.output import MARKER

KEY = ("ada", "day1")


def test_states_are_kept_and_a_new_one_undoes_those_after_it(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for state in State:
            journal.append(KEY, state, fact=str(state))
        assert journal.has(KEY, State.MERGED)
    with Journal(path) as journal:
        assert all(journal.has(KEY, state) for state in State)
        assert journal.fact(KEY, State.JUDGED, "fact") == "judged"
        journal.append(KEY, State.TAKEN)
        assert not journal.has(KEY, State.NORMALISED)
        assert not journal.has(("bob", "day1"), State.TAKEN)
    assert len(path.read_text().splitlines()) == len(State) + 1
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("cut", [1, 10, -1])
def test_a_line_that_was_cut_off_never_happened(tmp_path, cut):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(KEY, State.TAKEN)
        size = path.stat().st_size
        journal.append(KEY, State.NORMALISED)
    os.truncate(path, size + cut if cut > 0 else path.stat().st_size + cut)
    with Journal(path) as journal:
        assert journal.has(KEY, State.TAKEN)
        assert not journal.has(KEY, State.NORMALISED)
        journal.append(KEY, State.NORMALISED)
    assert [json.loads(line)["state"] for line in path.read_text().splitlines()] == ["taken", "normalised"]


# ---------------------------------------------------------------- kill -9


@pytest.fixture(scope="module")
def small_class(tmp_path_factory) -> Path:
    """Three students: half done, a known mistake, no notebook."""
    answers = dict(answers_of_class(DAY, mistakes=False))
    exercise = find_exercise("BlockTable")
    wrong = {**answers["perfect"], "BlockTable": cell_source(exercise, specimens(exercise).mutants[0])}
    texts = {"half": submission(DAY, answers["half-done"]), "wrong": submission(DAY, wrong), "junk": "no notebook"}
    return hand_in(tmp_path_factory.mktemp("class"), texts)


@pytest.fixture(scope="module")
def undisturbed(small_class, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    said_aloud(grade(small_class, out, [DAY], options()))
    return out


def start(work: Callable[[], None]) -> int:
    """Run something in a process of its own, which need not import everything again; its id."""
    pid = os.fork()
    if pid == 0:
        try:
            forkserver._forkserver.__init__()  # that of the parent is not this process's child
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def grade_until(small_class: Path, out: Path, state: State, written: bool) -> int:
    """Grade, going on where there is something, and be killed when a state is first reached."""

    def work() -> None:
        append = Journal.append

        def deadly(journal: Journal, key: tuple[str, str], reached: State, **facts: object) -> None:
            if reached is state and not written:
                os.kill(os.getpid(), signal.SIGKILL)
            append(journal, key, reached, **facts)
            if reached is state:
                os.kill(os.getpid(), signal.SIGKILL)

        Journal.append = deadly  # type: ignore[method-assign]
        grade(small_class, out, [DAY], options(resume=out.exists(), jobs=1))

    return os.waitpid(start(work), 0)[1]


def same(out: Path, undisturbed: Path) -> None:
    """Every file of results is what an undisturbed grading writes."""
    for name in ("marks.csv", "grades.csv"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert gradebook_rows(out) == gradebook_rows(undisturbed)
    assert read_records(out) == read_records(undisturbed)
    assert not (out / ".courses").exists()
    assert not list(out.rglob("*.tmp"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "written", [pytest.param(False, id="before the line"), pytest.param(True, id="after it", marks=pytest.mark.slow)]
)
def test_killed_at_every_transition_and_resumed_it_gives_the_same(small_class, undisturbed, tmp_path, written):
    """Each state is reached, done but not yet written down, when the kill comes; then once more, just written down."""
    out = tmp_path / "out"
    for state in State:
        status = grade_until(small_class, out, state, written)
        assert os.WIFSIGNALED(status), state
        assert not (out / "marks.csv").exists()  # nothing half-graded is reported
    grade(small_class, out, [DAY], options(resume=True))
    same(out, undisturbed)
    states = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    merged = [line["student"] for line in states if line["state"] == State.MERGED]
    assert sorted(merged) == ["half", "junk", "wrong"]  # nothing twice


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_25_random_moments_it_gives_the_same(small_class, undisturbed, tmp_path):
    begun = time.monotonic()
    grade(small_class, tmp_path / "timed", [DAY], options())
    whole = time.monotonic() - begun
    rng, kills = random.Random(SEED), 0
    while kills < 25:
        out = tmp_path / f"out-{kills}"
        for _ in range(5):
            pid = start(lambda out=out: grade(small_class, out, [DAY], options(resume=(out / MARKER).exists())))
            time.sleep(rng.uniform(0.0, whole))
            os.kill(pid, signal.SIGKILL)
            if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
                break  # it was done already
            kills += 1
        grade(small_class, out, [DAY], options(resume=(out / MARKER).exists()))
        same(out, undisturbed)
        shutil.rmtree(out)


def test_a_finished_grading_resumed_does_nothing_and_a_new_file_is_graded_again(small_class, undisturbed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    lines = (out / "journal.jsonl").read_text()
    again = grade(small_class, out, [DAY], options(resume=True, seed=None))
    assert (out / "journal.jsonl").read_text() == lines
    assert [record.status for record in again.records] == [Status.GRADED, Status.REFUSED, Status.GRADED]
    same(out, undisturbed)
    later = hand_in(
        tmp_path / "later", {"half": submission(DAY, dict(answers_of_class(DAY, mistakes=False))["perfect"])}
    )
    changed = grade(later, out, [DAY], options(resume=True))
    assert [(record.student, record.total) for record in changed.records] == [("half", 20.0)]
