"""Grading end to end on real submissions: exact points, feedback in words, and nobody's trouble is another's."""

import contextlib
import csv
import json
import os
from pathlib import Path

import nbformat
import pytest
from grading import (
    DAY,
    ENDS_PYTHON,
    NEVER_ENDS,
    SEED,
    expected,
    gradebook_rows,
    hand_in,
    marks_rows,
    options,
    points_of,
    said_aloud,
    with_own_cell,
)

from grader.build.notebook import notebook_text, release_notebook
from grader.checks import find_exercise
from grader.framework import Outcome
from grader.marks.record import Status, read_records
from grader.mutants import cell_source, specimens
from grader.pipeline.example_class import answers_of_class, submission, write_class
from grader.pipeline.grade import Graded, grade
from grader.pipeline.output import MARKER, OutputError, output_folder
from grader.reporting.terminal import table
from grader.sandbox.command import Level
from grader.sandbox.limits import Limits

pytestmark = pytest.mark.timeout(900)  # the fixture grades a class


def mutants_of(exercise_name: str) -> list[str]:
    return [mutant.name for mutant in specimens(find_exercise(exercise_name)).mutants]


def one_mutant(exercise_name: str, answers: dict) -> dict:
    exercise = find_exercise(exercise_name)
    return {**answers, exercise_name: cell_source(exercise, specimens(exercise).mutants[0])}


class Results:
    """A graded class: its marks, and what lies in its output folder."""

    def __init__(self, graded: Graded) -> None:
        self.graded, self.out = graded, graded.out
        self.marks = {one.student: one for one in graded.records}
        self.rows = marks_rows(graded.out)

    def points(self, student: str) -> dict[str, float]:
        return {row["exercise"]: float(row["points"]) for row in self.rows if row["student"] == student}

    def words(self, student: str) -> str:
        """What formgrader shows of a student's notebook, in one line."""
        notebook = nbformat.read(self.out / "autograded" / student / DAY.name / f"{DAY.name}.ipynb", 4)
        texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
            texts.append(output.get("text", "") + " ".join(output.get("traceback", [])))
        return " ".join(" ".join(texts).split())

    def nbgrader(self) -> dict[str, float]:
        with (self.out / "grades.csv").open(newline="") as file:
            return {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def graded(tmp_path_factory) -> Results:
    place = tmp_path_factory.mktemp("grading")
    answers = dict(answers_of_class(DAY, mistakes=False))
    right = answers["perfect"]
    texts = {name: submission(DAY, one) for name, one in answers.items()}
    texts |= {f"mutant-{name}": submission(DAY, one_mutant(name, right)) for name in DAY.exercises}
    texts["ends-python"] = with_own_cell(texts["perfect"], "BlockTable", ENDS_PYTHON)
    texts["never-ends"] = with_own_cell(texts["perfect"], "BlockTable", NEVER_ENDS)
    texts["broken"] = submission(
        DAY, {**right, "BlockTable": "class BlockTable(:", "CopyOnWrite": right["CopyOnWrite"] + "\n\n" + ENDS_PYTHON}
    )
    texts["junk"] = "<script>alert(1)</script>"
    hand_in(place / "class", texts)
    (place / "class" / "nothing").mkdir()
    before = dict(os.environ)
    limits = Limits(cell_seconds=3.0)
    with contextlib.chdir(place):  # relative paths, as an instructor types them
        results = Results(said_aloud(grade(Path("class"), Path("result"), [DAY], options(limits=limits))))
    assert dict(os.environ) == before
    return results


@pytest.mark.parametrize("exercise", DAY.exercises)
def test_the_seed_separates_the_mutants_used_here(exercise):
    assert not expected(exercise, mutants_of(exercise)[0])


@pytest.mark.parametrize(("student", "points"), [("perfect", 20), ("untouched", 0), ("noisy", 20)])
def test_totals_are_exact_and_the_gradebook_agrees(graded, student, points):
    assert sum(graded.points(student).values()) == points
    assert graded.nbgrader()[student] == points
    assert graded.marks[student].status is Status.GRADED


def test_half_done_earns_the_exercises_that_are_done(graded):
    done = dict(answers_of_class(DAY, mistakes=False))["half-done"]
    assert graded.points("half-done") == {n: (s.points if n in done else 0) for n, s in DAY.exercises.items()}
    outcomes = {row["exercise"]: row["outcome"] for row in graded.rows if row["student"] == "half-done"}
    assert {outcomes[name] for name in DAY.exercises if name not in done} == {"not attempted"}


@pytest.mark.parametrize("exercise", DAY.exercises)
def test_a_mutant_loses_exactly_what_it_breaks_and_is_named_in_words(graded, exercise):
    student = f"mutant-{exercise}"
    mutant = specimens(find_exercise(exercise)).mutants[0]
    right = expected(exercise, mutant.name)
    marks = {name: spec.points for name, spec in DAY.exercises.items()}
    assert graded.points(student) == {**marks, exercise: right.points}
    assert 0 <= right.points < DAY.exercises[exercise].points
    row = next(row for row in graded.rows if row["student"] == student and row["exercise"] == exercise)
    assert mutant.name in row["mistakes"].split()
    words = graded.words(student)
    assert " ".join(mutant.text.split()) in words
    assert f"{exercise}: {right.outcome}, {right.points:g} of {right.max_points:g} points" in words


def test_a_cell_that_ends_python_or_never_ends_costs_no_mark(graded):
    for student, status in (("ends-python", Status.CRASHED), ("never-ends", Status.TIMED_OUT)):
        assert sum(graded.points(student).values()) == 20
        assert graded.marks[student].status is status
    assert "ended Python and was left out" in graded.words("ends-python")
    assert "took too long and was left out" in graded.words("never-ends")


def test_broken_answers_cost_their_own_exercises_only_and_say_why(graded):
    points = graded.points("broken")
    assert {name for name, earned in points.items() if earned == 0} == {"BlockTable", "CopyOnWrite"}
    assert sum(points.values()) == 20 - DAY.exercises["BlockTable"].points - DAY.exercises["CopyOnWrite"].points
    words = graded.words("broken")
    assert "BlockTable could not be checked. SyntaxError" in words
    assert "CopyOnWrite could not be checked" in words


def test_a_file_that_is_no_notebook_and_none_at_all_are_told_apart_from_zero_work(graded):
    assert graded.marks["junk"].status is Status.REFUSED
    assert "your file could not be graded: it is not valid JSON" in graded.words("junk")
    assert graded.marks["nothing"].status is Status.MISSING
    statuses = {row["student"]: row["status"] for row in graded.rows}
    assert (statuses["junk"], statuses["nothing"], statuses["untouched"]) == ("refused", "missing", "graded")
    assert graded.nbgrader()["nothing"] == 0
    assert all(earned == 0 for earned in graded.points("nothing").values())


def test_noise_on_stderr_is_no_failure_and_no_part_of_the_tick_list(graded):
    words = graded.words("noisy")
    assert words.count("All right.") == len(DAY.exercises)


def test_students_see_neither_seed_nor_cases(graded):
    for student in graded.marks:
        if student != "nothing":
            assert "seed" not in graded.words(student)
            assert "smallest failing input" not in graded.words(student)
    hidden = [
        item for record in graded.marks.values() for result in record.results.values() for item in result.properties
    ]
    assert any(item.case_text for item in hidden)  # the instructor's record has them
    assert str(SEED) not in {str(result.seed) for record in graded.marks.values() for result in record.results.values()}


def test_records_are_read_back_as_they_were(graded):
    assert read_records(graded.out) == graded.graded.records
    perfect = graded.marks["perfect"]
    assert list(perfect.answers) == list(DAY.exercises)
    assert len(perfect.sha256) == 64
    assert graded.marks["untouched"].answers == {}
    assert {record.sandbox for record in graded.marks.values()} - {""} == {str(graded.graded.level)}


def test_the_gradebook_has_the_judges_marks_for_every_exercise(graded):
    rows = gradebook_rows(graded.out)
    for student, record in graded.marks.items():
        found = {
            name.removeprefix("check-"): auto
            for who, _, name, auto, *_ in (r for r in rows if len(r) > 1)
            if who == student
        }
        assert found == ({} if student == "nothing" else points_of(record)), student


def test_another_seed_changes_no_honest_mark(graded, tmp_path):
    answers = dict(answers_of_class(DAY, mistakes=False))
    hand_in(
        tmp_path / "class", {name: submission(DAY, answers[name]) for name in ("perfect", "half-done", "untouched")}
    )
    other = grade(tmp_path / "class", tmp_path / "out", [DAY], options(seed=SEED + 1))
    assert {r.student: points_of(r) for r in other.records} == {
        r.student: points_of(graded.marks[r.student]) for r in other.records
    }


def test_one_worker_and_the_fallback_give_the_same_marks(graded, tmp_path):
    answers = dict(answers_of_class(DAY, mistakes=False))
    texts = {"half-done": submission(DAY, answers["half-done"])}
    texts["mutant-BlockAllocator"] = submission(DAY, one_mutant("BlockAllocator", answers["perfect"]))
    hand_in(tmp_path / "class", texts)
    other = grade(tmp_path / "class", tmp_path / "out", [DAY], options(jobs=1, level=Level.UNSHARE))
    for record in other.records:
        assert record.sandbox == other.level
        assert record.results == graded.marks[record.student].results


def test_the_output_is_an_nbgrader_course_whose_release_is_ours(graded):
    release = graded.out / "release" / DAY.name / f"{DAY.name}.ipynb"
    assert release.read_text().strip() == notebook_text(release_notebook(DAY)).strip()
    assert (graded.out / "nbgrader_config.py").is_file()
    compile((graded.out / "nbgrader_config.py").read_text(), "nbgrader_config.py", "exec")
    assert (graded.out / "gradebook.db").is_file()


def test_the_seed_is_kept_for_the_instructor_alone(graded):
    marker = graded.out / MARKER
    assert json.loads(marker.read_text())["seed"] == SEED
    assert marker.stat().st_mode & 0o077 == 0


def test_marks_hold_no_times_and_every_student_has_a_line_for_every_exercise(graded):
    assert len(graded.rows) == len(graded.marks) * len(DAY.exercises)
    assert "seconds" not in graded.rows[0]
    times = (graded.out / "times.csv").read_text().splitlines()
    assert len(times) == 1 + len(graded.marks)


def test_the_table_names_the_mistake(graded):
    from rich.console import Console

    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table(list(graded.marks.values())))
    text = console.export_text()
    assert mutants_of("BlockAllocator")[0] in text
    assert "7 not attempted" in text


# ---------------------------------------------------------------- the output folder


def test_an_output_folder_that_is_not_ours_is_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for force, resume in ((False, False), (True, False), (False, True)):
        with pytest.raises(OutputError), output_folder(tmp_path, {"example": True}, resume, force):
            pass
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_an_earlier_grading_is_replaced_only_when_told_so(tmp_path):
    out = tmp_path / "out"

    def fill(example: bool, force: bool, text: str) -> None:
        with output_folder(out, {"example": example, "seed": 3}, False, force):
            (out / "marks.csv").write_text(text)

    fill(example=True, force=False, text="first")
    fill(example=True, force=False, text="second")  # the bundled class may be graded again and again
    assert (out / "marks.csv").read_text() == "second"
    fill(example=False, force=True, text="real")
    for example in (True, False):
        with pytest.raises(OutputError, match="--force"):
            fill(example=example, force=False, text="lost")
    assert (out / "marks.csv").read_text() == "real"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing is left beside it


def test_going_on_needs_a_grading_with_the_same_seed(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(OutputError, match="no grading to go on with"), output_folder(out, {}, True, False):
        pass
    with output_folder(out, {"seed": 3}, False, False):
        pass
    with (
        pytest.raises(OutputError, match="another seed"),
        output_folder(out, {"seed": 4, "seed_given": True}, True, False),
    ):
        pass
    with output_folder(out, {"seed": 4, "seed_given": False}, True, False) as facts:
        assert facts["seed"] == 3


def test_two_gradings_in_one_folder_at_once_are_refused(tmp_path):
    with (
        output_folder(tmp_path / "out", {"seed": 3}, False, False),
        pytest.raises(OutputError, match="at work"),
        output_folder(tmp_path / "out", {"seed": 3}, True, False),
    ):
        pass


# ---------------------------------------------------------------- the whole class


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_bundled_class_gets_exactly_the_marks_that_its_mistakes_deserve(tmp_path):
    names = write_class(tmp_path / "class", DAY)
    graded = Results(grade(tmp_path / "class", tmp_path / "out", [DAY], options()))
    full = {name: spec.points for name, spec in DAY.exercises.items()}
    assert set(graded.marks) == set(names)
    assert {one.status for one in graded.marks.values()} == {Status.GRADED}
    num_mutants = 0
    for exercise in DAY.exercises:
        for mutant in specimens(find_exercise(exercise)).mutants:
            student = f"{exercise}-{mutant.name}"
            right = expected(exercise, mutant.name)
            assert right.outcome is not Outcome.RIGHT
            assert graded.points(student) == {**full, exercise: right.points}, student
            assert " ".join(mutant.text.split()) in graded.words(student), student
            num_mutants += 1
    assert len(names) == 4 + num_mutants
