"""How files are written: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyllm.errors import WorkspaceError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, to be written; it takes the place of `path` when the block ends without error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_half_written(folder: Path) -> None:
    """Remove the temporary files that processes which were killed in `replacing` have left in a folder and below."""
    for temporary in folder.rglob(".*.*.tmp"):
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one: a temporary file takes its place by rename.

    Raises:
        WorkspaceError: the folder cannot be made or written to.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorkspaceError(
            f"cannot write {path}: {error.strerror or error}. Check the folder's rights and the free space, "
            "or set TINYLLM_WORK to a folder of your own."
        ) from None
