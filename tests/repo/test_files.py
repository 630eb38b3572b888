"""What a process that was killed while it wrote has left is found by the name that it was written under."""

from __future__ import annotations

from pathlib import Path

from tinyllm.files import remove_half_written, replacing


def test_half_written_files_are_removed_and_no_others(tmp_path: Path) -> None:
    left = []
    for name in ("marks.csv", "below/.nbgrader_config.py"):
        with replacing(tmp_path / name) as temporary:
            temporary.write_text("whole")
            left.append(temporary)
    for path in left:
        path.write_text("ha")
    (tmp_path / "of_a_student.tmp").write_text("kept")
    remove_half_written(tmp_path)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["below/.nbgrader_config.py", "marks.csv", "of_a_student.tmp"]
