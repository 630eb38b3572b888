"""The output folder: made for one grading, gone on with, or replaced; never one that is not ours."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyllm.errors import TinyLLMError
from tinyllm.files import remove_half_written

#: What a person has decided stays when a class is graded again: which exercises count, and marks set by hand.
DECISIONS = ("class.toml", "overrides.jsonl")
MARKER = "grading.json"  # tells that an output folder is ours, and what it is of


class OutputError(TinyLLMError):
    """The output folder cannot be used. The message says what to do."""


@contextmanager
def output_folder(out: Path, facts: dict[str, Any], resume: bool, force: bool) -> Iterator[dict[str, Any]]:
    """The folder `out`, locked against a second grading meanwhile.

    Args:
        facts: of a new grading: `example` (the bundled class, whose results anybody may replace), `seed`, ...
        resume: go on with the grading that is there; its facts are given back in place of these.
        force: replace a grading that is there.

    Raises:
        OutputError: `out` is not ours, or holds a grading that must not be replaced, or none to go on with.
    """
    out = out.resolve()
    earlier = read_marker(out)
    if resume:
        if earlier is None:
            raise OutputError(f"{out} holds no grading to go on with; leave --resume out")
        if facts.get("seed_given") and facts["seed"] != earlier.get("seed"):
            raise OutputError(f"{out} was begun with another seed; leave --seed out to go on with it")
        facts = earlier
    elif out.exists() and not (out.is_dir() and not holds_anything(out)):
        if earlier is None:
            raise OutputError(f"{out} is not empty and holds no earlier grading; give another folder with --out")
        if not force and not (facts.get("example") and earlier.get("example")):
            raise OutputError(
                f"{out} holds an earlier grading; give another folder with --out, --resume to go on with it, "
                "or --force to replace it"
            )
        with locked(out):
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
            os.replace(out, old / "was")
        out.mkdir()
        for name in DECISIONS:
            if (old / "was" / name).is_file():
                os.replace(old / "was" / name, out / name)
        shutil.rmtree(old)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if resume:
            remove_half_written(out)
        else:
            facts = {"made_by": "grader grade", **facts}
            write_privately(out / MARKER, json.dumps(facts))
        yield facts


def holds_anything(out: Path) -> bool:
    """Whether there is more in a folder than what a grading that was cut off at its very beginning leaves."""
    return any(path.name != f"{MARKER}.tmp" for path in out.iterdir())


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Nobody else grades into this folder meanwhile; the lock goes with the process, however it ends."""
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another grading is at work in {out}") from None
        yield
    finally:
        os.close(descriptor)


def read_marker(out: Path) -> dict[str, Any] | None:
    """What an output folder says that it is; None when it is not one of ours."""
    try:
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) and marker.get("made_by") == "grader grade" else None


def write_privately(path: Path, text: str) -> None:
    """Write a file that only its owner may read: the seed is in it."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    temporary.replace(path)
