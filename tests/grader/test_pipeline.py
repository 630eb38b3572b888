"""Grading end to end on real submissions: exact points, feedback in words, and nobody's trouble is another's."""

import csv
import html
import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from grader.build.course import find_day
from grader.build.notebook import notebook_text, release_notebook
from grader.checks import find_exercise
from grader.diagnosis import diagnosed
from grader.example_class import answers_of_class, submission, write_class
from grader.mutants import cell_source, specimens
from grader.pipeline import judged_run
from grader.pipeline.grade import MARKER, OutputError, fresh_folder, grade
from grader.pipeline.report import Status, table
from grader.results import CheckResult, Outcome
from grader.running import LocalDriver, run

pytestmark = pytest.mark.timeout(900)  # the fixture runs a dozen notebooks

SEED = 11
DAY = find_day("day1")
ENDS_PYTHON = "import os\nos._exit(3)"
NEVER_ENDS = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    pass"


def expected(exercise_name: str, mutant_name: str) -> CheckResult:
    """What a mutant's marks must be: its own result in this process, on the same hidden cases."""
    exercise = find_exercise(exercise_name)
    mutant = next(one for one in specimens(exercise).mutants if one.name == mutant_name)
    return diagnosed(exercise, run(exercise, SEED, LocalDriver(exercise, mutant.obj)))


def mutants_of(exercise_name: str) -> list[str]:
    return [mutant.name for mutant in specimens(find_exercise(exercise_name)).mutants]


def one_mutant(exercise_name: str, answers: dict) -> dict:
    exercise = find_exercise(exercise_name)
    return {**answers, exercise_name: cell_source(exercise, specimens(exercise).mutants[0])}


def with_own_cell(text: str, before: str, source: str) -> str:
    notebook = nbformat.reads(text, 4)
    where = [cell.id for cell in notebook.cells].index(before)
    notebook.cells.insert(where, new_code_cell(source))
    return notebook_text(notebook)


class Graded:
    """A graded class: its marks, and what lies in its output folder."""

    def __init__(self, out: Path, marks: list) -> None:
        self.out = out
        self.marks = {one.student: one for one in marks}
        with (out / "marks.csv").open(newline="") as file:
            self.rows = list(csv.DictReader(file))

    def points(self, student: str) -> dict[str, float]:
        return {row["exercise"]: float(row["points"]) for row in self.rows if row["student"] == student}

    def feedback(self, student: str) -> str:
        """The words of the student's page, in one line."""
        page = (self.out / "feedback" / student / DAY.name / f"{DAY.name}.html").read_text()
        text = re.sub(r"<(style|script).*?</\1>", "", page[page.index("<body") :], flags=re.DOTALL)
        return " ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).split())

    def nbgrader(self) -> dict[str, float]:
        with (self.out / "grades.csv").open(newline="") as file:
            return {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def graded(tmp_path_factory) -> Graded:
    folder, out = tmp_path_factory.mktemp("class"), tmp_path_factory.mktemp("out") / "result"
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
    for name, text in texts.items():
        (folder / name).mkdir()
        (folder / name / f"{DAY.name}.ipynb").write_text(text, encoding="utf-8")
    (folder / "nothing").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judged_run, "CELL_SECONDS", 8.0)
        patch.setenv("TINYLLM_WORK", str(folder / "work"))
        before = dict(os.environ)
        marks = grade(folder, out, [DAY], seed=SEED)
        assert dict(os.environ) == before
    assert not (folder / "work").exists()  # grading never touches the learner's folder
    return Graded(out, marks)


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
    page = graded.feedback(student)
    assert " ".join(mutant.text.split()) in page
    assert f"{exercise}: {right.outcome}, {right.points:g} of {right.max_points:g} points" in page


def test_a_cell_that_ends_python_or_never_ends_costs_no_mark(graded):
    for student, status in (("ends-python", Status.CRASHED), ("never-ends", Status.TIMED_OUT)):
        assert sum(graded.points(student).values()) == 20
        assert graded.marks[student].status is status
    assert "ended Python and was left out" in graded.feedback("ends-python")
    assert "took too long and was left out" in graded.feedback("never-ends")


def test_broken_answers_cost_their_own_exercises_only_and_say_why(graded):
    points = graded.points("broken")
    assert {name for name, earned in points.items() if earned == 0} == {"BlockTable", "CopyOnWrite"}
    assert sum(points.values()) == 20 - DAY.exercises["BlockTable"].points - DAY.exercises["CopyOnWrite"].points
    page = graded.feedback("broken")
    assert "BlockTable could not be checked. SyntaxError" in page
    assert "CopyOnWrite could not be checked" in page


def test_a_file_that_is_no_notebook_and_none_at_all_are_told_apart_from_zero_work(graded):
    assert graded.marks["junk"].status is Status.REFUSED
    assert "your file could not be graded: it is not valid JSON" in graded.feedback("junk")
    assert graded.marks["nothing"].status is Status.MISSING
    statuses = {row["student"]: row["status"] for row in graded.rows}
    assert (statuses["junk"], statuses["nothing"], statuses["untouched"]) == ("refused", "missing", "graded")
    assert graded.nbgrader()["nothing"] == 0
    assert all(earned == 0 for earned in graded.points("nothing").values())


def test_noise_on_stderr_is_no_failure_and_no_part_of_the_tick_list(graded):
    page = graded.feedback("noisy")
    assert page.count("All right.") == len(DAY.exercises)


def test_feedback_runs_nothing_and_hides_the_cases(graded):
    path = graded.out / "feedback" / "mutant-BlockAllocator" / DAY.name / f"{DAY.name}.html"
    page = path.read_text()
    assert '<head>\n<meta http-equiv="Content-Security-Policy" content="default-src \'none\';' in page
    assert "seed" not in graded.feedback("mutant-BlockAllocator")
    assert "smallest failing input" not in graded.feedback("mutant-BlockAllocator")


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
    for force in (False, True):
        with pytest.raises(OutputError, match="--out"), fresh_folder(tmp_path, force, example=True):
            pass
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_an_earlier_grading_is_replaced_whole_or_not_at_all(tmp_path):
    out = tmp_path / "out"

    def fill(example: bool, force: bool, text: str, fail: bool = False) -> None:
        with fresh_folder(out, force, example) as folder:
            (folder / MARKER).write_text(json.dumps({"made_by": "grader grade", "example": example}))
            (folder / "marks.csv").write_text(text)
            if fail:
                raise KeyboardInterrupt

    fill(example=True, force=False, text="first")
    fill(example=True, force=False, text="second")  # the bundled class may be graded again and again
    with pytest.raises(KeyboardInterrupt):
        fill(example=True, force=False, text="third", fail=True)
    assert (out / "marks.csv").read_text() == "second"
    fill(example=False, force=True, text="real")
    for example in (True, False):
        with pytest.raises(OutputError, match="--force"):
            fill(example=example, force=False, text="lost")
    assert (out / "marks.csv").read_text() == "real"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # nothing is left beside it


# ---------------------------------------------------------------- the whole class


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_bundled_class_gets_exactly_the_marks_that_its_mistakes_deserve(tmp_path):
    names = write_class(tmp_path / "class", DAY)
    graded = Graded(tmp_path / "out", grade(tmp_path / "class", tmp_path / "out", [DAY], seed=SEED))
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
            assert " ".join(mutant.text.split()) in graded.feedback(student), student
            num_mutants += 1
    assert len(names) == 4 + num_mutants
