"""The corpus, graded once for all tests by the real `grade` within tight limits."""

from __future__ import annotations

import csv
import hashlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from grader.marks.record import Record
from grader.pipeline.grade import Options, grade
from grader.pipeline.submissions import student_ids
from grader.sandbox.command import FIRST_UID
from grader.sandbox.limits import Limits
from hostile.book import DAY, Book, Hostile, Places
from hostile.cheating import cheating
from hostile.misbehavior import misbehavior
from hostile.structure import structure
from hostile.variety import variety
from tinyllm.paths import project_root

SEED = 20_260_614
CORPUS: tuple[Hostile, ...] = (*structure.makers, *misbehavior.makers, *cheating.makers, *variety.makers)

#: Far below what a class gets: the bombs of the corpus fill them in a second.
LIMITS = Limits(cell_seconds=3.0, memory_mib=512, disk_mib=32, processes=24, case_seconds=0.7, grace_seconds=0.5)

CLASS_FILE = f"""\
title = "The hostile class"

[late]
percent_per_day = 10

[days.{DAY.name}]
due = 2026-03-01T12:00:00+00:00
"""
DUE = 1_772_366_400  # seconds since 1970
ON_TIME, LATE = DUE - 3600, DUE + 36 * 3600


def tree(*folders: Path) -> dict[str, str]:
    """What every file below some folders holds, and every link and empty folder."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink():
                found[str(path)] = f"link to {os.readlink(path)}"
            elif path.is_file():
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[str(path)] = "folder" if path.is_dir() else "special"
    return found


def course_files() -> dict[str, tuple[int, int]]:
    """Size and time of every file of the course itself, byte code aside."""
    folders = [project_root() / name for name in ("tinyllm", "grader", "solutions", "notebooks")]
    paths = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.is_file()}


def processes() -> set[tuple[int, float]]:
    """Our own descendants, and whatever runs as one of the sandbox's users and belongs to nobody."""
    children = psutil.Process().children(recursive=True)
    # The two of multiprocessing's own stay as long as we do.
    helpers = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
    ours = [child for child in children if not any(name in " ".join(child.cmdline()) for name in helpers)]
    found = {(child.pid, child.create_time()) for child in ours}
    for process in psutil.process_iter(["uids", "create_time"]):
        uids = process.info["uids"]
        if uids and FIRST_UID <= uids.real < FIRST_UID + 64 and is_orphan(process):
            found.add((process.pid, process.info["create_time"]))
    return found


def is_orphan(process: psutil.Process) -> bool:
    """Whether nothing but init is above a process; what another grading on this machine runs has a parent."""
    try:
        return [parent.pid for parent in process.parents()] in ([1], [])
    except psutil.Error:
        return False


@dataclass
class Graded:
    """The graded corpus, and what the machine was like before and after."""

    out: Path
    places: Places
    records: dict[str, Record]
    before: dict[str, object]
    after: dict[str, object]
    heard: list[bytes] = field(default_factory=list)

    def of(self, hostile: Hostile) -> Record:
        """A submission's record; its name was made safe."""
        ((name, _),) = student_ids([self.places.submissions / hostile.student])
        return self.records[name]

    def page(self, student: str) -> str:
        """A student's feedback page."""
        return (self.out / "feedback" / student / DAY.name / f"{DAY.name}.html").read_text(encoding="utf-8")

    def rows(self, name: str) -> list[dict[str, str]]:
        """The lines of one of the tables."""
        with (self.out / name).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A port of this machine, and what it is told."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(100))

        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1], heard


@pytest.fixture(scope="session")
def graded(tmp_path_factory: pytest.TempPathFactory, listener: tuple[int, list[bytes]]) -> Graded:
    """The whole corpus, graded as one class by two workers."""
    root = tmp_path_factory.mktemp("hostile")
    port, heard = listener
    places = Places(root / "class", root / "results", root / "home", port)
    for folder in (places.submissions, places.home / ".ssh", root / "tmp"):
        folder.mkdir(parents=True)
    (places.home / ".ssh" / "id_ed25519").write_text("a key")
    for hostile in CORPUS:
        book = Book(places, places.submissions / hostile.student)
        hostile.make(book)
        book.write()
        when = LATE if hostile.make.__name__ == "handed_in_late" else ON_TIME
        for path in book.folder.iterdir():
            os.utime(path, (when, when), follow_symlinks=False)
    class_file = root / "class.toml"
    class_file.write_text(CLASS_FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(places.home))
        patch.setenv("TMPDIR", str(root / "tmp"))
        patch.setattr(tempfile, "tempdir", str(root / "tmp"))
        before = state(places, root)
        options = Options(seed=SEED, jobs=2, limits=LIMITS, class_file=class_file)
        result = grade(places.submissions, places.out, [DAY], options)
        deadline = time.monotonic() + 10
        while processes() - before["processes"] and time.monotonic() < deadline:  # type: ignore[operator]
            time.sleep(0.1)
        after = state(places, root)
    return Graded(places.out, places, {one.student: one for one in result.records}, before, after, heard)


def state(places: Places, root: Path) -> dict[str, object]:
    """What must be the same after grading as before."""
    return {
        "submissions": tree(places.submissions),
        "home": tree(places.home),
        "temporary": {name: kind for name, kind in tree(root / "tmp").items() if "/pymp-" not in name},
        "shared memory": sorted(path.name for path in Path("/dev/shm").iterdir()),
        "course": course_files(),
        "mounts": sorted(Path("/proc/self/mounts").read_text().splitlines()),
        "processes": processes(),
    }
