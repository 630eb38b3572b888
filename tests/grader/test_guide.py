"""What the instructor's guide says is what the grader does: columns, class file, verbs and options."""

import re

import pytest
from typer.testing import CliRunner

from book.figures.life import HOPS
from grader.build.course import gradable_days
from grader.cli import app
from grader.marks.class_file import read_class_file
from grader.reporting.tables import MARKS_COLUMNS, STUDENT_COLUMNS
from tinyllm.paths import project_root

GUIDE = (project_root() / "book" / "src" / "instructor.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^grader .*$", GUIDE, re.MULTILINE)))


@pytest.mark.parametrize(("name", "columns"), [("marks.csv", MARKS_COLUMNS), ("students.csv", STUDENT_COLUMNS)])
def test_the_tables_columns_are_described_as_they_are(name, columns):
    table = GUIDE.split(f"`{name}`:\n")[1].split("\n\n")[0]
    found = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE))
    assert found == dict(columns)


def test_the_class_file_of_the_guide_is_read(tmp_path):
    path = tmp_path / "class.toml"
    path.write_text(re.search(r"```toml\n(.*?)```", GUIDE, re.DOTALL)[1])
    class_file = read_class_file(path, gradable_days())
    assert class_file.points["day1_paged_kv_cache"]["BlockAllocator"] == 6


def test_the_hops_of_a_submission_are_files_that_exist():
    assert len(HOPS) <= 8
    assert all((project_root() / "grader" / file).is_file() for _, file, _ in HOPS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_verb_and_options_that_exist(command):
    verb, *words = command.removeprefix("grader ").split()
    shown = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, command
    for option in (word for word in words if word.startswith("--")):
        assert option in shown.output, command
