"""Where submissions are found: folders, nbgrader's layout, and zips from learning platforms, hostile ones too."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest
from small_lesson import LESSON, write_course

from grader.build.course import gradable_days
from grader.pipeline.archive import opened
from grader.pipeline.submissions import SubmissionsError, find_submissions
from tinyllm.verbs import MAX_SUBMISSION_BYTES

SECOND = LESSON.replace("BlockAllocator", "BlockTable").replace("PrefixCache", "CopyOnWrite").replace("double", "twice")


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    root = tmp_path_factory.mktemp("course")
    write_course(root)
    write_course(root, SECOND, "day2_more")
    return gradable_days(root)


def notebook(*names: str) -> str:
    cells = [{"cell_type": "code", "source": "", "metadata": {"nbgrader": {"grade_id": name}}} for name in names]
    return json.dumps({"nbformat": 4, "cells": cells})


def zipped(tmp_path: Path, members: dict[str, str | bytes]) -> Path:
    path = tmp_path / "class.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def found(path: Path, days) -> dict[tuple[str, str], str | None]:
    """What was handed in: student and day to the text of the file."""
    with opened(path) as folder:
        all_found = find_submissions(folder, days)
        return {(one.student, one.day): one.path and one.path.read_text() for one in all_found}


def test_the_day_is_recognized_by_name_or_by_what_is_inside(tmp_path, days):
    for student, name, text in (
        ("ada", "day2_more (1).ipynb", "{}"),
        ("bob", "my answers.ipynb", notebook("CopyOnWrite", "check-BlockTable")),
        ("cy", "homework.ipynb", notebook("PrefixCache", "double")),
        ("dan", "notes.ipynb", notebook("something")),
        ("eve", "EVE_day1_final.ipynb", notebook("CopyOnWrite")),
    ):
        (tmp_path / student).mkdir()
        (tmp_path / student / name).write_text(text)
    result = found(tmp_path, days)
    handed_in = {key for key, text in result.items() if text is not None}
    assert handed_in == {
        ("ada", "day2_more"),
        ("bob", "day2_more"),
        ("cy", "day1_small"),
        ("eve", "day1_small"),
    }
    assert ("dan", "day1_small") in result


def test_one_day_is_graded_when_asked_for(tmp_path, days):
    (tmp_path / "ada").mkdir()
    for day in days:
        (tmp_path / "ada" / f"{day.name}.ipynb").write_text("{}")
    assert set(found(tmp_path, days[1:])) == {("ada", "day2_more")}


def test_moodle_zips_with_folders_and_flat(tmp_path, days):
    folders = {
        "Ada Lovelace_12345_assignsubmission_file_/day1_small.ipynb": "1",
        "Ådne Øst_7_assignsubmission_file_/day1_small.ipynb": "2",
        "Bob Bit_9_assignsubmission_file_/readme.txt": "x",
        "__MACOSX/Ada Lovelace_12345_assignsubmission_file_/._day1_small.ipynb": "x",
    }
    expected = {("Ada_Lovelace", "day1_small"): "1", ("Ådne_Øst", "day1_small"): "2"}
    assert found(zipped(tmp_path, folders), days) == expected
    flat = {
        "Ada Lovelace_12345_assignsubmission_file_day1_small.ipynb": "1",
        "Ådne Øst_7_assignsubmission_file_day1_small.ipynb": "2",
    }
    assert found(zipped(tmp_path, flat), days) == expected


def test_a_class_in_one_folder_and_nbgraders_layout_in_a_zip(tmp_path, days):
    inside = {"class of 26/ada/day1_small.ipynb": "1", "class of 26/bob/day1_small.ipynb": "2"}
    assert set(found(zipped(tmp_path, inside), days)) == {("ada", "day1_small"), ("bob", "day1_small")}
    submitted = {"submitted/ada/day1_small/day1_small.ipynb": "1", "submitted/bob/day1_small/day1_small.ipynb": "2"}
    assert set(found(zipped(tmp_path, submitted), days)) == {("ada", "day1_small"), ("bob", "day1_small")}


def test_zips_write_nothing_outside_and_links_stay_packed(tmp_path, days):
    link = zipfile.ZipInfo("eve/day1_small.ipynb")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = tmp_path / "class.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ada/day1_small.ipynb", "1")
        archive.writestr(link, "/etc/passwd")
        for name in ("../../evil/day1_small.ipynb", "/tmp/evil/day1_small.ipynb", "ada\\..\\..\\evil.ipynb"):
            archive.writestr(name, "evil")
    before = set(tmp_path.rglob("*"))
    result = found(path, days)
    assert result[("ada", "day1_small")] == "1"
    assert ("eve", "day1_small") not in result
    assert set(tmp_path.rglob("*")) == before
    assert not Path("/tmp/evil").exists()


def test_a_bomb_is_cut_where_intake_refuses_it(tmp_path, days):
    path = zipped(tmp_path, {"ada/day1_small.ipynb": b"0" * (64 * 2**20)})
    assert path.stat().st_size < 2**20
    assert len(found(path, days)[("ada", "day1_small")] or "") == MAX_SUBMISSION_BYTES + 1


def test_what_is_no_zip_and_what_is_not_there_are_told(tmp_path, days):
    (tmp_path / "class.zip").write_text("no zip")
    with pytest.raises(SubmissionsError, match=r"class\.zip is no zip"):
        found(tmp_path / "class.zip", days)
    with pytest.raises(SubmissionsError, match="there is no folder"):
        found(tmp_path / "nothing", days)


def test_the_time_of_handing_in_is_nbgraders_or_the_files(tmp_path, days):
    place = tmp_path / "submitted" / "ada" / "day1_small"
    place.mkdir(parents=True)
    (place / "day1_small.ipynb").write_text("{}")
    (place / "timestamp.txt").write_text("2026-03-01 10:00:00.5 UTC\n")
    (one,) = find_submissions(tmp_path, days)
    assert one.handed_in == "2026-03-01T10:00:00.500000+00:00"
    (place / "timestamp.txt").write_text("yesterday")
    (one,) = find_submissions(tmp_path, days)
    assert one.handed_in.endswith("+00:00")
    (tmp_path / "submitted").rename(tmp_path / "plain")
    (place.parent.parent.parent / "plain" / "ada" / "day1_small" / "timestamp.txt").write_text(
        "1999-01-01 00:00:00 UTC"
    )
    (one,) = find_submissions(tmp_path / "plain", days)
    assert not one.handed_in.startswith("1999")  # the student's own file is not believed
