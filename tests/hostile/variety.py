"""Honest work of every kind: none of it loses a point that it has earned."""

from __future__ import annotations

from grader.build.sources import exercise_sources
from grader.checks import find_exercise
from grader.mutants import cell_source, specimens
from hostile.book import CLASS, FILE, FULL, FUNCTION, NO_FUNCTION, NOTHING, Book, Corpus

variety = Corpus()


@variety(FULL)
def plainly_right(book: Book) -> None:
    """The solution in its place."""


@variety(NOTHING)
def untouched(book: Book) -> None:
    """The notebook as it was handed out."""
    for name in FULL:
        book.answer(name, exercise_sources(name).stub)


@variety({FUNCTION: 2.0, CLASS: 0.0})
def half_done(book: Book) -> None:
    """One answer, and a stub."""
    book.answer(CLASS, exercise_sources(CLASS).stub)


@variety(FULL)
def extra_cells(book: Book) -> None:
    """Cells of its own before, between and after, with text, magics and shell commands."""
    book.own("%matplotlib inline\nimport math\n%time x = sum(range(10))")
    book.own("!echo hello\nx = !echo captured\nprint(x)", before=CLASS)
    book.own("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()", before=f"check-{CLASS}")
    book.cells.append({"cell_type": "markdown", "id": "text", "metadata": {}, "source": "Thanks!"})


@variety(FULL)
def extra_cells_that_fail(book: Book) -> None:
    """An experiment that raises, and one that does not parse."""
    book.own("1 / 0")
    book.own("def broken(:", before=CLASS)


@variety(FULL)
def another_algorithm(book: Book) -> None:
    """A right solution by another data structure, and a loop in place of a formula."""
    exercise = find_exercise(CLASS)
    book.answer(CLASS, cell_source(exercise, specimens(exercise).alternates[0]))
    book.answer(
        FUNCTION,
        "import numpy as np\n\ndef kv_bytes_per_token(config, bytes_per_element):\n    total = np.int64(0)\n"
        "    for layer in range(config.num_layers):\n        for tensor in 'KV':\n"
        "            total += config.num_kv_heads * config.head_dim * bytes_per_element\n    return total",
    )


@variety(FULL)
def helper_in_its_own_cell(book: Book) -> None:
    """The answer leans on a function, a constant and an import from other cells."""
    book.own(
        "from functools import reduce\nimport operator\n\ndef product(values):\n    return reduce(operator.mul, "
        "values, 1)\n\nTENSORS = 2"
    )
    book.answer(
        FUNCTION,
        "def kv_bytes_per_token(config, bytes_per_element):\n    return product([TENSORS, config.num_layers, "
        "config.num_kv_heads, config.head_dim, bytes_per_element])",
    )


@variety(FULL)
def later_exercise_uses_an_earlier_one(book: Book) -> None:
    """A second definition of the answer in the same cell; the last one counts, as in any notebook."""
    source = book.cell(FUNCTION)["source"]
    book.answer(FUNCTION, "def kv_bytes_per_token(config, bytes_per_element):\n    return 0\n\n" + source)


@variety(NO_FUNCTION)
def syntax_error_in_one_answer(book: Book) -> None:
    """An answer that does not parse costs its own points only."""
    book.answer(FUNCTION, "def kv_bytes_per_token(config, bytes_per_element)\n    return 1")


@variety(FULL, folder="Zoë Müller-李明")
def unicode_names(book: Book) -> None:
    """A name with letters of three scripts, and identifiers that are no ASCII either."""
    book.own("größe = 'größe → ∞'\nprint(größe)")
    source = book.cell(FUNCTION)["source"].replace("elements_per_layer", "élémentsλ")
    book.answer(FUNCTION, source)


@variety(FULL, folder="=HYPERLINK(1)")
def formula_for_a_name(book: Book) -> None:
    """A name that a spreadsheet would compute."""


@variety(FULL)
def resubmitted(book: Book) -> None:
    """An older version lies beside the notebook, under the name that a copy gets."""
    book.folder.mkdir(parents=True)
    (book.folder / FILE.replace(".ipynb", "-old.ipynb")).write_text("{}")


@variety(FULL)
def handed_in_late(book: Book) -> None:
    """Right and late; what that costs is decided at export and not by the judge."""


@variety(FULL)
def slow_but_right(book: Book) -> None:
    """Takes a while at every call, within the limit."""
    source = book.cell(FUNCTION)["source"]
    book.answer(
        FUNCTION, source.replace("    elements_per", "    import time\n    time.sleep(0.01)\n    elements_per", 1)
    )


@variety(FULL)
def old_notebook_format(book: Book) -> None:
    """Saved by an editor that writes version 4.2, with sources as lists of lines."""
    book.data["nbformat_minor"] = 2
    for cell in book.cells:
        cell["source"] = cell["source"].splitlines(keepends=True)


@variety(FULL)
def byte_order_mark(book: Book) -> None:
    """Saved by an editor on Windows."""
    import json

    book.raw = b"\xef\xbb\xbf" + json.dumps(book.data).encode().replace(b"\\n", b"\\r\\n")
