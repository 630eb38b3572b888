"""Exercises of an instructor's own, from the folder beside the class file to marks; the guide shows this example."""

import csv
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from grader.build.course import LessonError, find_day
from grader.build.own import use_own
from grader.build.sources import exercise_sources
from grader.checks import exercises, find_exercise
from grader.instructor.bundle import write_bundle
from grader.marks.class_file import ClassFileError, course_of, read_class_file
from grader.marks.kept import kept_class_file
from grader.mutants import cell_source, specimens
from grader.own import VARIABLE
from grader.pipeline.example_class import submission
from grader.pipeline.grade import Options, grade_or_example
from grader.usage import UsageError

pytestmark = pytest.mark.timeout(300)
EXAMPLE = Path(__file__).parent / "own_example"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """A copy of the example; its exercises are part of the course during the test."""
    monkeypatch.setenv(VARIABLE, "")
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    yield folder
    monkeypatch.undo()
    exercises.cache_clear()
    specimens.cache_clear()


def test_an_own_exercise_is_checked_bundled_and_graded_like_the_courses(example, tmp_path):
    names = write_bundle(tmp_path / "week.zip", example / "class.toml")
    assert names[:3] == ["README.txt", "day1_paged_kv_cache.ipynb", "day10_sampling.ipynb"]
    assert "own/checks/keep_top_k.py" in names
    with zipfile.ZipFile(tmp_path / "week.zip") as archive:
        notebook = archive.read("day10_sampling.ipynb").decode()
    assert "torch.topk" not in notebook

    day, exercise = find_day("day10"), find_exercise("keep_top_k")
    solution = exercise_sources("keep_top_k").solution
    (mutant,) = specimens(exercise).mutants
    hand_in = tmp_path / "class"
    for student, answer in (("ada", solution), ("bob", cell_source(exercise, mutant)), ("cyd", None)):
        (hand_in / student).mkdir(parents=True)
        text = submission(day, {"keep_top_k": answer} if answer else {})
        (hand_in / student / "day10_sampling.ipynb").write_text(text)
        os.utime(hand_in / student / "day10_sampling.ipynb", (1_780_000_000, 1_780_000_000))
    options = Options(days=("day10",), seed=3, jobs=1, unsafe=True, class_file=example / "class.toml")
    grade_or_example(hand_in, tmp_path / "out", options, lambda *_: None)
    with (tmp_path / "out" / "marks.csv").open(newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert {name: row["points"] for name, row in rows.items()} == {"ada": "2", "bob": "0.5", "cyd": "0"}
    assert rows["bob"]["mistakes"] == "masks_with_zero"
    assert rows["cyd"]["outcome"] == "not attempted"
    assert "softmax of 0" in (tmp_path / "out/feedback/bob/day10_sampling/day10_sampling.html").read_text()
    kept = kept_class_file(tmp_path / "out", course_of(tmp_path / "out" / "class.toml"))
    assert kept.own == example / "own"  # found from the output folder, too


def test_the_example_class_file_is_read(example):
    class_file = read_class_file(example / "class.toml", course_of(example / "class.toml"))
    assert class_file.points["day1_paged_kv_cache"] == {"kv_bytes_per_token": 2, "BlockAllocator": 6}
    assert set(class_file.due) == {"day1_paged_kv_cache", "day10_sampling"}
    assert class_file.late.free_days == 2


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("checks/keep_top_k.py", 'name="keep_top_k"', 'name="other"', "must define EXERCISE"),
        ("checks/keep_top_k.py", "import torch\n", "import torch\n1 / 0\n", "ZeroDivisionError"),
        ("solutions/day10_sampling/lesson.py", "keep_top_k", "keep_best", "keep_best has no checks"),
        ("solutions/day10_sampling/lesson.py", "keep_top_k", "BlockTable", "the course has a BlockTable already"),
    ],
)
def test_what_does_not_fit_together_is_named(example, file, old, new, words):
    path = example / "own" / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises((UsageError, LessonError), match=words):
        use_own(example / "own")


def test_a_missing_folder_is_named(example):
    shutil.rmtree(example / "own")
    with pytest.raises(ClassFileError, match="there is no folder"):
        course_of(example / "class.toml")
