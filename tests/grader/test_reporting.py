"""From records to what people look at: final marks, tables, pages, report, overrides, look-alikes, bundle."""

import csv
import json
import re
import zipfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from typer.testing import CliRunner

from grader.build.course import LessonError, find_day, gradable_days
from grader.build.notebook import release_notebook
from grader.build.sources import BEGIN, END, exercise_sources, marked_source
from grader.cli import app
from grader.framework import CheckResult, Diagnosis, Outcome, PropertyResult
from grader.instructor.bundle import refuse_solutions, write_bundle
from grader.marks.class_file import ClassFile, ClassFileError, LateRule, chosen, read_class_file
from grader.marks.decide import decide
from grader.marks.final import finish
from grader.marks.kept import ResultsError, kept_class_file
from grader.marks.overrides import FILE_NAME as OVERRIDES
from grader.marks.overrides import Override, OverrideError, history, in_force, record
from grader.marks.record import Record, Status, write_record
from grader.marks.similar import find_alike, fingerprint
from grader.mutants import specimens
from grader.reporting.class_report import class_report, kind_of
from grader.reporting.export import export
from grader.reporting.feedback_page import STATUS_WORDS, feedback_page
from grader.reporting.tables import MARKS_COLUMNS, SIMILAR_COLUMNS, STUDENT_COLUMNS, csv_text, harmless

DAY = find_day("day1")
COURSE = gradable_days()
DUE = datetime(2026, 12, 1, 22, 59, tzinfo=UTC)
TEXT = f"""\
title = "LLM serving"

[late]
percent_per_day = 10
grace_minutes = 15
free_days = 1

[days.day1]
due = {DUE.isoformat()}
exercises = {{ kv_bytes_per_token = 1, BlockAllocator = 6 }}

[days.day1.extensions]
zoe = {(DUE + timedelta(days=7)).isoformat()}
"""


def result(name: str, *outcomes: Outcome, message: str = "", diagnoses: tuple[Diagnosis, ...] = ()) -> CheckResult:
    """A result whose properties share the exercise's points."""
    points = DAY.exercises[name].points
    properties = tuple(
        PropertyResult(f"property {number} of {name}", points / len(outcomes), outcome, message if number == 0 else "")
        for number, outcome in enumerate(outcomes)
    )
    return CheckResult(name, None, properties, diagnoses)


RIGHT, WRONG, CRASHED = Outcome.RIGHT, Outcome.WRONG, Outcome.CRASHED


def student(name: str, status: Status = Status.GRADED, handed_in: datetime = DUE, **results: CheckResult) -> Record:
    """A record; exercises without a result are not attempted."""
    if status in (Status.REFUSED, Status.MISSING, Status.FAILED):
        found = {}
    else:
        found = {one: result(one, Outcome.NOT_ATTEMPTED) for one in DAY.exercises} | results
    points = {one: (found[one].points if one in found else 0.0, spec.points) for one, spec in DAY.exercises.items()}
    when = "" if status is Status.MISSING else handed_in.isoformat()
    return Record(name, DAY.name, status, points, found, handed_in=when)


def all_right(name: str, handed_in: datetime = DUE) -> Record:
    return student(name, handed_in=handed_in, **{one: result(one, RIGHT) for one in DAY.exercises})


def class_file(tmp_path, text: str = TEXT) -> ClassFile:
    path = tmp_path / "class.toml"
    path.write_text(text)
    return read_class_file(path, COURSE)


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def out(tmp_path):
    """An output folder with a small class in it, and no gradebook."""
    folder = tmp_path / "results"
    known = Diagnosis("forgets_the_values", "You count K and forget `V`.")
    wrong = result("kv_bytes_per_token", WRONG, WRONG, message="expected 26 bytes, got 13", diagnoses=(known,))
    for one in (
        all_right("ada"),
        student("bob", kv_bytes_per_token=wrong, BlockAllocator=result("BlockAllocator", RIGHT, RIGHT, WRONG)),
        student("cyd", Status.REFUSED),
        student("dan", Status.MISSING),
        student("eve", Status.FAILED),
    ):
        write_record(folder, one)
    return folder


# ---------------------------------------------------------------- the class file and final marks


def test_without_a_class_file_marks_are_what_the_judge_gave():
    (final,) = finish([all_right("ada", DUE + timedelta(days=90))], ClassFile(), {})
    assert (final.total, final.max_total, final.days_late, final.penalty) == (20, 20, 0, 0)


def test_only_chosen_exercises_count_and_on_the_classs_scale(tmp_path):
    half = result("BlockAllocator", RIGHT, WRONG)
    (final,) = finish([student("ada", BlockAllocator=half)], class_file(tmp_path), {})
    assert [item.name for item in final.exercises] == ["kv_bytes_per_token", "BlockAllocator"]
    assert (final.total, final.max_total) == (3, 7)


@pytest.mark.parametrize(
    ("late", "days", "penalty"),
    [
        (timedelta(minutes=15), 0, 0.0),
        (timedelta(minutes=16), 1, 0.0),  # the free day
        (timedelta(days=1), 1, 0.0),
        (timedelta(days=1, seconds=1), 2, 0.7),
        (timedelta(days=4), 4, 2.1),
        (timedelta(days=400), 400, 7.0),  # never more than was earned
    ],
)
def test_lateness_is_counted_in_days_begun(tmp_path, late, days, penalty):
    (final,) = finish([all_right("ada", DUE + late)], class_file(tmp_path), {})
    assert (final.days_late, final.penalty) == (days, pytest.approx(penalty))
    assert final.total == pytest.approx(7 - penalty)


def test_an_extension_is_a_students_own_due_date(tmp_path):
    late = DUE + timedelta(days=6)
    zoe, ada = finish([all_right("zoe", late), all_right("ada", late)], class_file(tmp_path), {})
    assert (zoe.days_late, ada.days_late) == (0, 6)


def test_free_days_are_spent_once_over_all_days_in_the_order_of_due_dates():
    rule = LateRule(percent_per_day=50, free_days=2)
    rules = ClassFile(due={"dayb": DUE, "daya": DUE + timedelta(days=7)}, late=rule)
    points = {"x": (4.0, 4.0)}
    first = Record("ada", "dayb", Status.GRADED, points, handed_in=(DUE + timedelta(hours=30)).isoformat())
    second = Record("ada", "daya", Status.GRADED, points, handed_in=(DUE + timedelta(days=7, hours=1)).isoformat())
    by_day = {one.day: one for one in finish([second, first], rules, {})}
    assert (by_day["dayb"].free_days, by_day["dayb"].penalty) == (2, 0)
    assert (by_day["daya"].free_days, by_day["daya"].penalty) == (0, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[days.day7]\n", "no day 'day7'"),
        ("[days.day1]\nexercises = ['Scheduler']\n", "has no exercise 'Scheduler'"),
        ("[days.day1]\nexercises = []\n", "names no exercise"),
        ("[days.day1]\nexercises = { BlockTable = -1 }\n", "from 0 to 1000"),
        ("[days.day1]\nexercises = { BlockTable = true }\n", "from 0 to 1000"),
        ("[days.day1]\ndue = 2026-12-01\n", "offset from UTC"),
        ("[days.day1]\ndue = 2026-12-01T10:00:00\n", "offset from UTC"),
        ("[days.day1]\ndeadline = 1\n", "unknown entry 'deadline'"),
        ("[late]\nfree_days = 1.5\n", "whole number"),
        ("[late]\npercent_per_day = 'ten'\n", "from 0 to 100"),
        ("own = 'nowhere'\n", "there is no folder"),
        ("title = 3\n", "text in quotes"),
        ("late = 3\n", "must be a table"),
        ("= 3", "cannot be read"),
    ],
)
def test_a_wrong_class_file_says_which_entry_and_what_may_stand_there(tmp_path, text, words):
    with pytest.raises(ClassFileError, match=re.escape(words)):
        class_file(tmp_path, text)


def test_an_exercise_that_does_not_count_stays_in_the_notebook_as_practice(tmp_path):
    day = chosen(DAY, class_file(tmp_path))
    texts = {cell.id: cell for cell in release_notebook(day).cells}
    heads = [cell.source for cell in texts.values() if "**Exercise" in cell.source]
    assert sum("practice, no points" in head for head in heads) == 5
    assert texts["check-BlockAllocator"].metadata.nbgrader["points"] == 6
    assert texts["BlockTable"].source == exercise_sources("BlockTable").stub


# ---------------------------------------------------------------- overrides


def test_overrides_are_appended_and_the_last_one_counts(out):
    decide(out, COURSE, "bob", "BlockAllocator", 3, "  see the\nappeal ")
    decide(out, COURSE, "bob", "BlockAllocator", 2.5, "counted again")
    decide(out, COURSE, "ada", "BlockTable", 0, "copied")
    decide(out, COURSE, "ada", "BlockTable", None, "not copied after all", withdraw=True)
    lines = history(out)
    assert [one.points for one in lines] == [3, 2.5, 0, None]
    assert lines[0].reason == "see the appeal"
    assert all(one.by and datetime.fromisoformat(one.at).tzinfo for one in lines)
    assert {key[2]: one.points for key, one in in_force(lines).items()} == {"BlockAllocator": 2.5}
    assert (out / OVERRIDES).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("zed", "BlockTable", 1, "x"), "no student 'zed'"),
        (("bob", "Scheduler", 1, "x"), "no exercise 'Scheduler'"),
        (("bob", "BlockTable", 9, "x"), "from 0 to 3 points"),
        (("bob", "BlockTable", float("nan"), "x"), "from 0 to 3 points"),
        (("bob", "BlockTable", None, "x"), "how many points"),
        (("bob", "BlockTable", 1, "  "), "needs a reason"),
        (("bob", "BlockTable", None, "x", True), "nothing to take back"),
    ],
)
def test_an_override_that_makes_no_sense_is_not_recorded(out, arguments, words):
    with pytest.raises(OverrideError, match=re.escape(words)):
        decide(out, COURSE, *arguments)
    assert not (out / OVERRIDES).exists()


def test_a_line_that_is_no_override_is_named(out):
    record(out, Override("bob", DAY.name, "BlockTable", 1, "x"))
    with (out / OVERRIDES).open("a") as file:
        file.write("half a li\n")
    with pytest.raises(OverrideError, match="line 2"):
        history(out)


# ---------------------------------------------------------------- tables


def test_the_tables_hold_a_line_for_each_exercise_and_each_student(out):
    decide(out, COURSE, "bob", "BlockAllocator", 2.5, "=see the appeal")
    export(out, COURSE)
    marks, students = rows(out / "marks.csv"), rows(out / "students.csv")
    assert list(marks[0]) == list(MARKS_COLUMNS)
    assert list(students[0]) == list(STUDENT_COLUMNS)
    assert len(marks) == 5 * len(DAY.exercises)
    bob = {row["exercise"]: row for row in marks if row["student"] == "bob"}
    assert (bob["BlockAllocator"]["points"], bob["BlockAllocator"]["judged_points"]) == ("2.5", "2")
    assert bob["BlockAllocator"]["override_reason"] == "'=see the appeal"
    assert bob["kv_bytes_per_token"]["mistakes"] == "forgets_the_values"
    assert bob["kv_bytes_per_token"]["outcome"] == "wrong"
    totals = {row["student"]: row["total"] for row in students}
    assert totals == {"ada": "20", "bob": "2.5", "cyd": "0", "dan": "0", "eve": ""}  # a failed grading is no 0
    assert {row["points"] for row in marks if row["student"] == "eve"} == {""}
    assert [row["status"] for row in students] == ["graded", "graded", "refused", "missing", "failed"]


def test_no_cell_of_a_table_is_a_formula():
    for text in ("=1+1", "+cmd", "-cmd", "@x", "\tx"):
        assert harmless(text) == f"'{text}"
    assert [harmless(value) for value in (-1.5, "2", "", "Zoë", "a-b")] == ["-1.5", "2", "", "Zoë", "a-b"]
    assert csv_text({"a": "", "b": ""}, [["x, y", '"']]) == 'a,b\n"x, y",""""\n'


def test_exporting_again_changes_nothing_and_another_class_file_only_what_it_says(out, tmp_path):
    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}

    export(out, COURSE)
    first = files()
    export(out, COURSE)
    assert files() == first
    (out / "class.toml").write_text(TEXT)
    export(out, COURSE)
    second = files()
    assert {path: data for path, data in second.items() if "/results/results/" in path} == {
        path: data for path, data in first.items() if "/results/results/" in path
    }
    assert len(rows(out / "marks.csv")) == 5 * 2
    assert kept_class_file(out, COURSE).title == "LLM serving"


def test_a_folder_without_results_says_what_to_name(tmp_path):
    with pytest.raises(ResultsError, match="grader grade --out"):
        export(tmp_path, COURSE)


# ---------------------------------------------------------------- pages


def body_of(page: str) -> str:
    return re.sub(r"<[^>]+>", " ", page[page.index("<body") :])


@pytest.mark.parametrize("status", Status)
def test_every_status_is_told_with_what_to_try(status):
    (final,) = finish([student("ada", status)], ClassFile(), {})
    text = body_of(feedback_page(final, "Day 1", {}))
    if status is Status.GRADED:
        assert "0 of 20 points" in text
    else:
        assert len(STATUS_WORDS[status]) > 60
        assert STATUS_WORDS[status].split("`")[0] in text.replace("&#x27;", "'")
    assert ("No marks yet" in text) is (status is Status.FAILED)


def test_a_page_tells_the_mistake_the_override_and_the_lateness(tmp_path):
    known = Diagnosis("forgets", "You forget `V`.")
    wrong = result("kv_bytes_per_token", WRONG, message="expected 26 bytes, got 13", diagnoses=(known,))
    key = ("ada", DAY.name, "BlockAllocator")
    decision = Override(*key, 4, "Counted by hand", "prof", "2026-12-05T10:00:00+00:00")
    (final,) = finish(
        [student("ada", handed_in=DUE + timedelta(days=2), kv_bytes_per_token=wrong)],
        class_file(tmp_path),
        {key: decision},
    )
    page = feedback_page(final, "Day 1", {"kv_bytes_per_token": "x = '</pre><script>'"})
    text = body_of(page)
    assert "3.6 of 7 points" in text
    assert "Handed in 2 days late, of which 1 free day cost nothing" in text
    assert "These points were set by a person: 4 of 6. Counted by hand." in text
    assert "expected 26 bytes, got 13" in text
    assert "<code>V</code>" in page
    assert "<script" not in page
    assert "BlockTable" not in text  # it does not count in this class


def test_the_numbers_of_a_learners_own_error_are_not_shown():
    crash = PropertyResult("s", 1, CRASHED, "ValueError: layers 7654321, in line 12 of your code (in `f`): raise", "k")
    wrong = PropertyResult("t", 1, WRONG, "expected 26 bytes, in line with 13", "k")
    shown = CheckResult("x", 5, (crash, wrong)).without_inputs()
    assert shown.properties[0].message == "ValueError: layers #, in line 12 of your code (in `f`): raise"
    assert shown.properties[1].message == wrong.message
    assert shown.seed is None


def test_the_report_counts_right(out, tmp_path):
    decide(out, COURSE, "bob", "BlockAllocator", 3, "an appeal")
    export(out, COURSE)
    report = (out / "report.html").read_text()
    text = " ".join(body_of(report).split())
    assert "3 submissions graded, 1 student handed nothing in. Median 3, mean 7.67 of 20 points; 1 with" in text
    assert "forgets_the_values (kv_bytes_per_token): 1" in report
    assert "kv_bytes_per_token: 1 right, 1 no points, 1 not attempted" in report
    assert "an appeal" in text
    for name, words in (("eve", "failed"), ("cyd", "refused"), ("dan", "missing")):
        assert re.search(rf"{name} {DAY.name} {words}", text)
    assert report.count("data:image/svg+xml;base64,") == 3
    assert not re.search(r"(src|href)=\"(?!data:|#)", report)
    assert "<script" not in report


def test_a_class_without_marks_still_has_a_report():
    finals = finish([student("dan", Status.MISSING), student("eve", Status.FAILED)], ClassFile(), {})
    assert "0 submissions graded" in class_report(finals, {DAY.name: "Day 1"})
    assert class_report([], {})


def test_kinds_of_the_picture():
    one = student("a", BlockTable=result("BlockTable", RIGHT, WRONG), BlockAllocator=result("BlockAllocator", WRONG))
    (final,) = finish([one], ClassFile(), {})
    kinds = {item.name: kind_of(item) for item in final.exercises}
    assert (kinds["BlockTable"], kinds["BlockAllocator"]) == ("partly right", "no points")
    assert kinds["PrefixCache"] == "not attempted"


# ---------------------------------------------------------------- look-alikes

DOUBLE = '''\
import math

def double(x: int, *, times: int = 2) -> int:
    """Twice x."""
    total = 0
    for _ in range(times):  # as often as asked
        total += x
    return total
'''


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda text: text.replace("total", "summe").replace("x", "wert"), True),
        (lambda text: text.replace('    """Twice x."""\n', "").replace("  # as often as asked", ""), True),
        (lambda text: text.replace(": int", "").replace(" -> int", ""), True),
        (lambda text: text.replace("import math\n", "from math import pi, e\n"), True),
        (lambda text: text.replace("total += x", "total = total + x"), False),
        (lambda text: text.replace("= 2", "= 3"), False),
        (lambda text: text.replace("def double", "def twice"), False),
    ],
)
def test_names_comments_annotations_and_layout_do_not_make_a_difference(change, same):
    changed = change(DOUBLE)
    assert changed != DOUBLE
    assert (fingerprint(changed) == fingerprint(DOUBLE)) is same


def test_what_is_no_python_is_like_nothing():
    assert fingerprint("def f(:") == fingerprint("x = " + "(" * 9000) == ("", 0)
    assert find_alike({("a", "d"): {"f": "("}, ("b", "d"): {"f": "("}}, {}, {}) == []


def test_equal_answers_are_grouped_and_stubs_are_none():
    stub, other = "def double(x):\n    raise NotImplementedError", "def double(x):\n    return x + x"
    renamed = DOUBLE.replace("total", "t")
    answers = {
        ("ada", "d"): {"double": DOUBLE},
        ("bob", "d"): {"double": renamed},
        ("cyd", "d"): {"double": stub},
        ("dan", "d"): {"double": stub},
        ("eve", "d"): {"double": other},
    }
    (group,) = find_alike(answers, {"double": "def double(x):\n    return 2 * x"}, {"double": stub})
    assert (group.students, group.reference) == (("ada", "bob"), False)
    (alone,) = find_alike({("eve", "d"): {"double": other}}, {"double": other}, {})
    assert (alone.students, alone.reference) == (("eve",), True)
    assert list(SIMILAR_COLUMNS) == ["day", "exercise", "students", "equals_reference", "size"]


# ---------------------------------------------------------------- the bundle


def pieces_of_solutions() -> list[str]:
    """Every pair of neighboring lines of every solution that is long enough to be nobody else's."""
    pairs = []
    for day in COURSE:
        for spec in day.exercises.values():
            for block in re.findall(rf"{BEGIN}\n(.*?){END}", marked_source(day, spec), re.DOTALL):
                lines = [line.strip() for line in block.splitlines() if line.strip()]
                pairs += [f"{a}\n{b}" for a, b in pairwise(lines) if len(a) + len(b) > 40]
    return pairs


def test_the_bundle_holds_no_solution_no_hidden_test_and_no_mutant(tmp_path):
    from grader.checks import exercises

    write_bundle(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert set(texts) == {"README.txt", "AGENTS.md", *(f"{day.name}.ipynb" for day in COURSE)}
    flat = {}
    for name, text in texts.items():
        if name.endswith(".ipynb"):
            sources = ["".join(cell["source"]) for cell in json.loads(text)["cells"]]
            text = "\n".join(sources)
        flat[name] = "\n".join(line.strip() for line in text.splitlines())
    everything = "\n".join(flat.values())
    pieces = pieces_of_solutions()
    assert len(pieces) > 40
    assert [piece for piece in pieces if piece in everything] == []
    assert "HIDDEN TESTS" not in everything
    assert "check_hidden" not in everything
    mutants = [mutant for exercise in exercises().values() for mutant in specimens(exercise).mutants]
    assert len(mutants) > 20
    assert [m.name for m in mutants if re.search(rf"\b{m.name}\b", everything)] == []
    assert [m.name for m in mutants if m.text in everything] == []


def test_a_solution_in_a_bundle_is_found():
    solved = json.dumps(
        {"cells": [{"source": exercise_sources("PrefixCache").solution.splitlines(keepends=True)}]}, indent=4
    )
    with pytest.raises(LessonError, match="the solution of PrefixCache"):
        refuse_solutions("x.ipynb", re.sub(r"\n +", "\n    ", solved), COURSE)
    refuse_solutions("x.ipynb", exercise_sources("PrefixCache").stub, COURSE)


def test_a_bundle_follows_the_class_file_and_overwrites_nothing(tmp_path):
    (tmp_path / "class.toml").write_text(TEXT)
    names = write_bundle(tmp_path / "week.zip", tmp_path / "class.toml")
    assert names == ["README.txt", f"{DAY.name}.ipynb", "AGENTS.md"]
    before = (tmp_path / "week.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "week.zip") as archive:
        readme = archive.read("README.txt").decode()
    assert "LLM serving" in readme
    assert "7 points" in readme
    assert "BlockAllocator: 6" in readme
    with pytest.raises(LessonError, match="--force"):
        write_bundle(tmp_path / "week.zip")
    write_bundle(tmp_path / "week.zip", tmp_path / "class.toml", force=True)
    assert (tmp_path / "week.zip").read_bytes() == before  # the same every time
    assert sorted(path.name for path in tmp_path.iterdir()) == ["class.toml", "week.zip"]


# ---------------------------------------------------------------- the verbs


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def test_the_verbs_work_together(out, tmp_path):
    (tmp_path / "class.toml").write_text(TEXT)
    done = run("export", str(out), "--class", str(tmp_path / "class.toml"))
    assert done.exit_code == 0, done.output
    assert "5 submissions (2 graded, 1 refused, 1 missing, 1 failed)" in " ".join(done.output.split())
    done = run("override", str(out), "bob", "BlockAllocator", "6", "--reason", "an appeal")
    assert "bob now has 6 of 7 points" in " ".join(done.output.split())
    assert "An appeal." in (out / "feedback" / "bob" / DAY.name / f"{DAY.name}.html").read_text()
    done = run("override", str(out), "bob", "BlockAllocator", "--withdraw", "--reason", "no appeal")
    assert "back to the judge's mark" in " ".join(done.output.split())
    assert "0 groups" in run("similar", str(out)).output
    assert run("bundle", str(tmp_path / "x.zip"), "--day", "day1").exit_code == 0
    for verb in ("export", "override", "similar", "bundle"):
        assert "Examples:" in run(verb, "--help").output
