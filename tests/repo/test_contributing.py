"""What CONTRIBUTING.md shows of an exercise is what the repository holds, and the files that it names are there."""

from __future__ import annotations

import re
from textwrap import indent

from tinyllm.paths import project_root

TEXT = (project_root() / "CONTRIBUTING.md").read_text(encoding="utf-8")
SHOWN = re.compile(
    r"^(?:`(?P<path>[\w/.]+)`:\n\n)?```(?:python|toml|text)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


def test_listings_are_cut_from_the_files_they_name() -> None:
    path, count = "", 0
    for match in SHOWN.finditer(TEXT):
        path = match["path"] or path  # one that names no file is from the same as the one before
        text = (project_root() / path).read_text(encoding="utf-8")
        assert any(indent(match["code"], " " * by) in text for by in (0, 4, 8)), f"{path} has changed"
        count += 1
    assert count >= 4


def test_the_files_of_the_table_are_there() -> None:
    paths = re.findall(r"^\| .+? \| `([\w/.]+)` \|", TEXT, re.MULTILINE)
    assert len(paths) == 7
    for path in paths:
        assert (project_root() / path).is_file(), path
