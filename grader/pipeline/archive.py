"""Submissions as learning platforms pack them: a zip with a folder, or a file, for each student."""

from __future__ import annotations

import os
import re
import stat
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from grader.pipeline.submissions import SubmissionsError
from tinyllm.verbs import MAX_SUBMISSION_BYTES

MAX_MEMBERS = 100_000

#: Moodle's name of a student's part: name, number, kind; then a folder or, flat, the file's name.
MOODLE_FILE = re.compile(r"^(?P<student>.+_\d+_assignsubmission_file)_(?P<file>[^/]+\.ipynb)$")


@contextmanager
def opened(submissions: Path) -> Iterator[Path]:
    """A folder with the submissions: the folder itself, or what a zip holds, in a temporary one.

    Raises:
        SubmissionsError: there is no such folder or file, or it is no zip.
    """
    if not submissions.is_file():
        yield submissions
        return
    with tempfile.TemporaryDirectory(prefix="submissions-") as temporary:
        try:
            with zipfile.ZipFile(submissions) as archive:
                unpack(archive, Path(temporary))
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise SubmissionsError(f"{submissions} is no zip that can be read ({error})") from None
        yield Path(temporary)


def unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Write the notebooks of an archive to a folder for each student; everything else stays packed.

    No member can be written outside `folder`, and of none is more read than a submission may have: a larger one is
    cut there, and intake refuses it as too large.
    """
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise SubmissionsError(f"the zip holds {len(members):,} files; the most is {MAX_MEMBERS:,}")
    common = common_folder([PurePosixPath(item.filename).parts for item in members if is_notebook(item)])
    for item in members:
        parts = PurePosixPath(item.filename.replace("\\", "/")).parts[common:]
        if not is_notebook(item) or not parts or any(part in ("..", "/") for part in parts):
            continue
        if len(parts) == 1:
            parts = flat_name(parts[0])
        target = folder.joinpath(*(part[:120] for part in parts[:-1]), parts[-1][-120:])
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(item) as source:
            target.write_bytes(source.read(MAX_SUBMISSION_BYTES + 1))
        when = time.mktime((*item.date_time, 0, 0, -1))
        os.utime(target, (when, when))


def is_notebook(item: zipfile.ZipInfo) -> bool:
    """Whether a member is a regular file that is called a notebook; macOS packs companions that are none."""
    mode = item.external_attr >> 16
    regular = not mode or stat.S_ISREG(mode) or not stat.S_IFMT(mode)
    return item.filename.endswith(".ipynb") and regular and "__MACOSX" not in item.filename


def common_folder(paths: list[tuple[str, ...]]) -> int:
    """How many folders stand above those of the students: 1 where everything is in one folder of the class."""
    folders = {parts[0] for parts in paths}
    return int(len(folders) == 1 and all(len(parts) > 2 for parts in paths))


def flat_name(name: str) -> tuple[str, str]:
    """A student's folder and the file in it, for a file that stands by itself."""
    found = MOODLE_FILE.match(name)
    return (found["student"], found["file"]) if found else (name.removesuffix(".ipynb"), name)
