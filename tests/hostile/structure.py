"""Notebooks that are not as they were handed out: every answer in them still counts, and nothing else does."""

from __future__ import annotations

import io
import json
import os
import zipfile
from copy import deepcopy

from grader.build.sources import exercise_sources
from hostile.book import CLASS, FULL, FUNCTION, NO_FUNCTION, NOTHING, Book, Corpus
from tinyllm.verbs import MAX_SUBMISSION_BYTES

structure = Corpus()


@structure(FULL, "repaired", words="more than once")
def copied_answer_cell(book: Book) -> None:
    """The answer cell is there twice, and the second copy is still the stub."""
    copy = deepcopy(book.cell(FUNCTION))
    copy["source"] = exercise_sources(FUNCTION).stub
    book.cells.append(copy)


@structure(FULL, "repaired", words="more than once")
def copied_check_cell(book: Book) -> None:
    """A check cell is there three times: stock nbgrader stops the batch."""
    book.cells.extend(deepcopy([book.cell(f"check-{FUNCTION}")] * 2))


@structure(FULL, "repaired", words="was missing and has been put back")
def deleted_check_cells(book: Book) -> None:
    """Both check cells are gone."""
    for name in FULL:
        book.remove(f"check-{name}")


@structure(NO_FUNCTION, "repaired", words="was missing and has been put back")
def deleted_answer_cell(book: Book) -> None:
    """An answer cell is gone, and its answer with it."""
    book.remove(FUNCTION)


@structure(FULL, "repaired", words="found in a cell of your own")
def answer_in_a_cell_of_its_own(book: Book) -> None:
    """The answer was written into a new cell, and the answer cell deleted."""
    book.own(book.cell(FUNCTION)["source"], before=FUNCTION)
    book.remove(FUNCTION)


@structure(FULL, "graded", "repaired")
def renamed_grade_ids(book: Book) -> None:
    """Every grade id has another name: stock nbgrader loses the submission."""
    for cell in book.cells:
        if "nbgrader" in cell["metadata"]:
            cell["metadata"]["nbgrader"]["grade_id"] += "-mine"


@structure(FULL, "graded", "repaired")
def answer_made_text(book: Book) -> None:
    """The answer cell was turned into Markdown, as one wrong key press does."""
    cell = book.cell(FUNCTION)
    cell["cell_type"] = "markdown"
    del cell["outputs"], cell["execution_count"]


@structure(FULL)
def points_changed(book: Book) -> None:
    """The metadata say that a check is worth a hundred points."""
    book.cell(f"check-{CLASS}")["metadata"]["nbgrader"].update(points=100, locked=False)


@structure(FULL, "repaired", words="had been changed and was restored")
def check_cell_edited(book: Book) -> None:
    """A check cell says 100 in place of its check."""
    book.cell(f"check-{FUNCTION}")["source"] = "100.0"


@structure(FULL)
def schema_of_the_future(book: Book) -> None:
    """nbgrader's schema version is 99: the stock one stops the batch."""
    for cell in book.cells:
        if "nbgrader" in cell["metadata"]:
            cell["metadata"]["nbgrader"]["schema_version"] = 99


@structure(FULL)
def schema_of_the_past(book: Book) -> None:
    """nbgrader's schema version is 1, with the fields that it had."""
    for cell in book.cells:
        if "nbgrader" in cell["metadata"]:
            cell["metadata"]["nbgrader"] = {"schema_version": 1, "grade_id": cell["id"], "solution": True}


@structure(FULL, "graded", "repaired")
def metadata_dropped(book: Book) -> None:
    """Another editor dropped all metadata and ids but kept the definitions."""
    for cell in book.cells:
        cell["metadata"] = {}
        del cell["id"]
    book.data["nbformat_minor"] = 2


@structure(FULL)
def cells_shuffled(book: Book) -> None:
    """The cells stand in reverse order."""
    book.cells.reverse()


@structure(NOTHING, "refused", words="not a notebook of version 4")
def notebook_format_99(book: Book) -> None:
    """The file says that it is a notebook of version 99."""
    book.data["nbformat"] = 99


@structure(NOTHING, "refused", words="not valid JSON")
def cut_in_half(book: Book) -> None:
    """The upload broke off in the middle."""
    text = json.dumps(book.data).encode()
    book.raw = text[: len(text) // 2]


@structure(NOTHING, "refused", words="not valid JSON")
def empty_file(book: Book) -> None:
    """Nothing is in the file."""
    book.raw = b""


@structure(NOTHING, "refused")
def list_in_place_of_a_notebook(book: Book) -> None:
    """JSON, and no notebook."""
    book.raw = b'[{"cells": []}]'


@structure(NOTHING, "refused", words="not valid JSON")
def nested_without_end(book: Book) -> None:
    """A hundred thousand brackets: deeper than any parser's stack."""
    book.raw = b"[" * 100_000


@structure(NOTHING, "refused", words="larger than")
def outputs_of_many_megabytes(book: Book) -> None:
    """Pictures made the file larger than the limit."""
    book.own("x = 1")
    book.cells[0]["metadata"]["padding"] = "x" * (MAX_SUBMISSION_BYTES + 10)


@structure(NOTHING, "refused", words="not valid JSON")
def zip_bomb_called_a_notebook(book: Book) -> None:
    """A zip in which 200 MB of zeros take 200 KB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, file.open("a.ipynb", "w") as member:
        for _ in range(200):
            member.write(bytes(2**20))
    book.raw = buffer.getvalue()


@structure(FULL)
def wrong_file_name(book: Book) -> None:
    """The file has the name that a browser gives to a second download."""
    book.name = book.name.replace(".ipynb", " (2).ipynb")


@structure(NOTHING, "missing")
def another_kind_of_file(book: Book) -> None:
    """A text file, and no notebook anywhere."""
    book.name = "homework.docx"


@structure(NOTHING, "refused", words="link")
def link_to_anothers_work(book: Book) -> None:
    """The notebook is a link to that of the student who has everything right."""
    book.folder.mkdir(parents=True)
    (book.folder / book.name).symlink_to(book.places.submissions / "plainly_right" / book.name)


@structure(NOTHING, "refused", words="link")
def link_to_a_system_file(book: Book) -> None:
    """The notebook is a link to a file that the grader may read."""
    book.folder.mkdir(parents=True)
    (book.folder / book.name).symlink_to("/etc/passwd")


@structure(NOTHING, "missing")
def linked_folder(book: Book) -> None:
    """The day's folder is a link to another student's."""
    book.folder.mkdir(parents=True)
    (book.folder / book.name.removesuffix(".ipynb")).symlink_to(book.places.submissions / "plainly_right")
    book.name = "readme.txt"


@structure(NOTHING, "missing", "refused")
def pipe_in_place_of_a_file(book: Book) -> None:
    """A named pipe: whoever opens it waits for ever."""
    book.folder.mkdir(parents=True)
    os.mkfifo(book.folder / book.name)


@structure(NOTHING, "missing", "refused")
def folder_in_place_of_a_file(book: Book) -> None:
    """A folder with the notebook's name."""
    (book.folder / book.name).mkdir(parents=True)


@structure(FULL, "graded", "repaired")
def paths_that_lead_out(book: Book) -> None:
    """Ids, grade ids and attachments that are paths to other places."""
    book.own("x = 1")
    own = next(cell for cell in book.cells if str(cell["id"]).startswith("mine"))
    own["id"] = "../../../gradebook.db"
    own["metadata"] = {"nbgrader": {"grade_id": "../../../escaped", "solution": True, "grade": True, "points": 50}}
    own["attachments"] = {"../../../../escaped.png": {"image/png": "aGk="}}


@structure(FULL)
def text_that_is_no_text(book: Book) -> None:
    """Half a surrogate pair, control characters and a terminal's escape codes in sources and outputs."""
    book.own("x = '\ud800 \x1b[2J'\nprint('\x1b]0;gotcha\x07')", before=CLASS)
    book.cell(FUNCTION)["outputs"] = [{"output_type": "nonsense", "data": {"\ud800": 1}}]
