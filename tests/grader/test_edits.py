"""Wrong answers as edits of the solved cell: what is made of them, and what is refused in words."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from small_exercises import PURSE, PURSE_CELL, result_of

from grader.build.sources import solved_cell
from grader.checks import exercises
from grader.framework import Outcome
from grader.mutants import by_kind, cell_source, day_folder, edited_specimens, specimens
from grader.mutants.edits import read_edits
from grader.usage import UsageError

FILE = """\
[mutant.LosesTheLast]
text = '''You refuse the last one,
which may still be taken.

Look at `take`.'''
find = "if count > self.left:"
replace = "if count >= self.left:"

[variant.LosesTheLast.StartsWithOneLess]
find = "self.left = size"
replace = "self.left = size - 1"

[unknown_bug.TakesTwiceAndNeverGives]
edits = [
    { find = "self.left -= count", replace = "self.left -= 2 * count" },
    { find = "self.left += count", replace = "pass" },
]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "Purse.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_edit_is_a_cell_with_one_place_changed(tmp_path: Path) -> None:
    first, variant, unknown = read_edits(write(tmp_path, FILE), PURSE_CELL)
    assert (first.name, first.kind, first.of) == ("LosesTheLast", "mutant", "")
    assert first.text == "You refuse the last one, which may still be taken.\nLook at `take`."
    assert first.source == PURSE_CELL.replace("count > self.left", "count >= self.left")
    assert (variant.kind, variant.of, variant.text) == ("variant", "LosesTheLast", "")
    assert unknown.kind == "unknown bug"
    assert unknown.source.endswith("2 * count\n\n    def give(self, count):\n        pass\n")


def test_edits_are_specimens_that_run_as_cells(tmp_path: Path) -> None:
    known = by_kind(edited_specimens(PURSE, write(tmp_path, FILE), PURSE_CELL))
    assert [item.name for item in (*known.mutants, *known.variants, *known.unknown_bugs)] == [
        "LosesTheLast",
        "StartsWithOneLess",
        "TakesTwiceAndNeverGives",
    ]
    assert known.mutants[0].text.startswith("You refuse the last one, which")
    assert cell_source(PURSE, known.mutants[0]) == known.mutants[0].source
    assert result_of(PURSE, known.mutants[0].obj).outcome is Outcome.WRONG
    assert known.variants[0].mistake == "LosesTheLast"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("if count > self.left:", "if count < self.left:", "LosesTheLast: .* stands not at all in the solved cell"),
        ('"if count > self.left:"', '"count"', "LosesTheLast: .* stands 5 times in the solved cell"),
        ('"if count > self.left:"', '""', "LosesTheLast: .* not at all"),
        ('"if count >= self.left:"', '"if count > self.left:"', "LosesTheLast changes nothing"),
        ('find = "if count > self.left:"', "", "LosesTheLast has no find"),
        ('replace = "self.left = size - 1"', "", "LosesTheLast.StartsWithOneLess has no replace"),
        ('find = "self.left = size"', "find = 3", "StartsWithOneLess has no find"),
        ('find = "self.left = size"', 'fund = "self.left = size"', "StartsWithOneLess: unknown key 'fund'"),
        ('replace = "pass"', 'replace = "pass", times = 2', "TakesTwiceAndNeverGives: unknown key 'times'"),
        ('find = "self.left = size"', 'edits = []\nfind = ""', "needs either find and replace, or edits"),
        ("[mutant.LosesTheLast]\ntext", "[mutant.LosesTheLast]\ntxt", "unknown key 'txt'"),
        ("[unknown_bug.", "[unknown_bugs.", "Purse.toml: unknown key 'unknown_bugs'"),
        ("[variant.LosesTheLast.StartsWithOneLess]", "[variant.LosesTheLast]", "LosesTheLast.find should be a table"),
        ("[variant.", "[[variant.", "no TOML"),
        ('"if count >= self.left:"', '"if count >="', "LosesTheLast does not run: SyntaxError"),
        ('find = "if', 'alike = { Other = "" }\nfind = "if', "alike names each mutant with a reason"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in FILE
    with pytest.raises(UsageError, match=words):
        edited_specimens(PURSE, write(tmp_path, FILE.replace(old, new, 1)), PURSE_CELL)


def test_a_variant_without_a_find_changes_the_place_that_its_mutant_changes(tmp_path: Path) -> None:
    text = FILE.replace(
        'find = "self.left = size"\nreplace = "self.left = size - 1"', 'replace = "if not count < self.left:"'
    )
    assert read_edits(write(tmp_path, text), PURSE_CELL)[1].source == PURSE_CELL.replace(
        "count > self.left", "not count < self.left"
    )


def test_an_entry_twice_is_no_toml(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no TOML"):
        read_edits(write(tmp_path, FILE + FILE), PURSE_CELL)


def test_a_mutant_needs_words(tmp_path: Path) -> None:
    text = '[mutant.Silent]\nfind = "self.left = size"\nreplace = "self.left = 0"\n'
    with pytest.raises(UsageError, match="Silent has no text to be its diagnosis"):
        read_edits(write(tmp_path, text), PURSE_CELL)


FILES = [path for name in exercises() if (path := day_folder(name) / "mutants" / f"{name}.toml").is_file()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_edit_of_the_course_is_found(path: Path) -> None:
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    mutants, variants, unknown = (tables.get(kind, {}) for kind in ("mutant", "variant", "unknown_bug"))
    known = specimens(exercises()[path.stem])
    assert {item.name for item in known.mutants if item.source} == set(mutants)
    assert {item.name for item in known.variants if item.source} == {n for group in variants.values() for n in group}
    assert {item.name for item in known.unknown_bugs if item.source} == set(unknown)
    for item in (*known.mutants, *known.variants, *known.unknown_bugs):
        assert not item.source or item.source != solved_cell(path.stem)
