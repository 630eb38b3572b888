"""What an output folder keeps of a class: its records and its class file. All that a mark is made of is read here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grader.build.course import Day
from grader.marks.class_file import FILE_NAME, ClassFile, copied_text, read_class_file
from grader.marks.record import Record, read_records
from tinyllm.errors import TinyLLMError
from tinyllm.files import write_text


class ResultsError(TinyLLMError):
    """The folder holds no results. The message says what to do."""


def keep_class_file(out: Path, class_file: Path | None, course: Sequence[Day]) -> None:
    """Put a class file into an output folder, once it is sure that it can be used.

    Args:
        out: the folder.
        class_file: the file; None leaves the folder as it is.
        course: the days that it may speak of.

    Raises:
        ClassFileError: it cannot be used; the folder's own stays.
    """
    if class_file is not None:
        read_class_file(class_file, course)
        write_text(out / FILE_NAME, copied_text(class_file))


def kept_records(out: Path) -> list[Record]:
    """The records of an output folder.

    Raises:
        ResultsError: there are none, or one cannot be read.
    """
    try:
        records = read_records(out)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"a record below {out / 'results'} cannot be read ({error}); grade again") from None
    if not records:
        raise ResultsError(f"{out} holds no results; name the folder that `grader grade --out` wrote")
    return records


def kept_class_file(out: Path, course: Sequence[Day]) -> ClassFile:
    """The class file in an output folder; without one, every exercise counts as the lesson says."""
    path = out / FILE_NAME
    return read_class_file(path, course) if path.is_file() else ClassFile()
