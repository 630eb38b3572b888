"""How files are written: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from tinyllm.errors import WorkspaceError


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one: a temporary file takes its place by rename.

    Raises:
        WorkspaceError: the folder cannot be made or written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WorkspaceError(
            f"cannot write {path}: {error.strerror or error}. Check the folder's rights and the free space, "
            "or set TINYLLM_WORK to a folder of your own."
        ) from None
