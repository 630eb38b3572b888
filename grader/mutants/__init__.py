"""Wrong solutions by hand (mutants), other right ones (alternates), and the diagnosis that a learner gets from them.

A file of mutants imports its decorators from here. specimen.py finds them, edits.py reads those that are edits of the
right answer, diagnosis.py holds a wrong answer against them.
"""

from grader.mutants.specimen import (
    Specimen,
    Specimens,
    alternate,
    as_cell,
    by_kind,
    cell_source,
    day_folder,
    edited_specimens,
    mutant,
    read_specimens,
    renamed_source,
    specimens,
    unknown_bug,
    variant,
)

__all__ = [
    "Specimen",
    "Specimens",
    "alternate",
    "as_cell",
    "by_kind",
    "cell_source",
    "day_folder",
    "edited_specimens",
    "mutant",
    "read_specimens",
    "renamed_source",
    "specimens",
    "unknown_bug",
    "variant",
]
