"""Copies are made, and never over anything; files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinyllm import workspace
from tinyllm.errors import WorkspaceError
from tinyllm.files import write_text


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_missing_notebooks_are_copied_and_others_left_alone(clone: Path, work: Path) -> None:
    work.mkdir()
    (work / "day1_small.ipynb").write_text("not even a notebook, but mine")
    fresh = workspace.fetch_missing()
    assert [p.name for p in fresh] == ["day0_warm_up.ipynb"]
    assert (work / "day1_small.ipynb").read_text() == "not even a notebook, but mine"
    assert (work / "day0_warm_up.ipynb").read_bytes() == (clone / "notebooks/day0_warm_up.ipynb").read_bytes()
    assert (work / "AGENTS.md").read_text() == "Tutor, do not solve.\n"


def test_a_second_time_changes_nothing(clone: Path, work: Path) -> None:
    assert len(workspace.fetch_missing()) == 2
    (work / "AGENTS.md").write_text("my own")
    before = files(work)
    assert workspace.fetch_missing() == []
    assert files(work) == before


def test_a_dangling_link_is_somebodys_too(clone: Path, work: Path) -> None:
    work.mkdir()
    (work / "day0_warm_up.ipynb").symlink_to("/nowhere/at/all")
    assert [p.name for p in workspace.fetch_missing()] == ["day1_small.ipynb"]
    assert (work / "day0_warm_up.ipynb").is_symlink()


@pytest.mark.parametrize("name", ["day1", "day1_small", "day1_small.ipynb"])
def test_a_day_is_found_by_its_first_word_or_in_full(clone: Path, name: str) -> None:
    (clone / "notebooks/day10_large.ipynb").write_text("{}")
    assert workspace.find_release(name).name == "day1_small.ipynb"


@pytest.mark.parametrize("name", ["day", "day2", "", "DAY1", "../day1", "*"])
def test_an_unknown_day_lists_the_known_ones(clone: Path, name: str) -> None:
    with pytest.raises(WorkspaceError, match="day0_warm_up, day1_small"):
        workspace.find_release(name)


def test_days_are_in_the_courses_order(clone: Path) -> None:
    for name in ("day10_x", "day2_x"):
        (clone / f"notebooks/{name}.ipynb").write_text("{}")
    assert [p.stem for p in workspace.releases()] == ["day0_warm_up", "day1_small", "day2_x", "day10_x"]


def test_without_a_clone_the_error_says_how_to_get_one(clone: Path) -> None:
    for path in (clone / "notebooks").glob("*.ipynb"):
        path.unlink()
    with pytest.raises(WorkspaceError, match=r"pip install -e \."):
        workspace.releases()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "answer.ipynb"
    write_text(path, "old")

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(WorkspaceError, match="No space left"):
        write_text(path, "new")
    assert files(tmp_path) == {"answer.ipynb": b"old"}


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="TINYLLM_WORK"):
        write_text(tmp_path / "file" / "under" / "x.ipynb", "text")


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    paths = []
    for _ in range(3):
        path = workspace.unused_path(tmp_path, "first", ".py")
        path.write_text("")
        paths.append(path)
    assert len(set(paths)) == 3
