"""Gradings that are cut off by kill -9: what comes out is what an undisturbed one gives."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from grading import DAY, SEED, gradebook_rows, hand_in, options, said_aloud

from grader.checks import find_exercise
from grader.marks.record import Status, read_records
from grader.mutants import cell_source, specimens
from grader.pipeline import steps
from grader.pipeline.example_class import answers_of_class, submission
from grader.pipeline.grade import grade
from grader.pipeline.output import MARKER
from grader.pipeline.steps import Grading
from grader.reporting import gradebook
from grader.workers import Worker

#: What a grading does for the first time at each of its steps, in order: a kill comes right before it, or right after.
STEPS: dict[str, tuple[Any, str]] = {
    "taken": (Grading, "take"),
    "rebuilt": (Grading, "prepare"),
    "given to a worker": (Worker, "give"),
    "recorded": (steps, "write_record"),
    "in the gradebook": (gradebook, "write_student"),
}


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


def grade_until(small_class: Path, out: Path, step: str, after: bool) -> int:
    """Grade, going on where there is something, and be killed when a step is first made."""

    def work() -> None:
        owner, name = STEPS[step]
        original = getattr(owner, name)

        def deadly(*args: Any) -> None:
            if after:
                original(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, deadly)
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
    "after", [pytest.param(False, id="before the step"), pytest.param(True, id="after it", marks=pytest.mark.slow)]
)
def test_killed_at_every_step_and_resumed_it_gives_the_same(small_class, undisturbed, tmp_path, after):
    """Each step is about to be made when the kill comes; then once more, just made."""
    out = tmp_path / "out"
    written: dict[str, int] = {}
    for step in STEPS:
        status = grade_until(small_class, out, step, after)
        assert os.WIFSIGNALED(status), step
        assert not (out / "marks.csv").exists()  # nothing half-graded is reported
        for path in (out / "results").glob("*/*.json"):  # nothing twice
            assert written.setdefault(path.parent.name, path.stat().st_ino) == path.stat().st_ino
    assert sorted(written) == ["half", "junk", "wrong"]
    grade(small_class, out, [DAY], options(resume=True))
    assert written == {path.parent.name: path.stat().st_ino for path in (out / "results").glob("*/*.json")}
    same(out, undisturbed)


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
    before = {path: path.stat().st_ino for path in (out / "results").rglob("*.json")}
    again = grade(small_class, out, [DAY], options(resume=True, seed=None))
    assert {path: path.stat().st_ino for path in (out / "results").rglob("*.json")} == before
    assert [record.status for record in again.records] == [Status.GRADED, Status.REFUSED, Status.GRADED]
    same(out, undisturbed)
    later = hand_in(
        tmp_path / "later", {"half": submission(DAY, dict(answers_of_class(DAY, mistakes=False))["perfect"])}
    )
    changed = grade(later, out, [DAY], options(resume=True))
    assert [(record.student, record.total) for record in changed.records] == [("half", 20.0)]


@pytest.mark.parametrize("damage", ["", "{", '{"status": "graded"}'])
def test_a_record_that_cannot_be_read_is_made_again(small_class, undisturbed, tmp_path, damage):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    (out / "results" / "junk" / f"{DAY.name}.json").write_text(damage)
    grade(small_class, out, [DAY], options(resume=True))
    same(out, undisturbed)
