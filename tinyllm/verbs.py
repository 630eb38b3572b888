"""What a learner does with a day's notebook: start it, reset an exercise, update it, hand it in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinyllm import notebook as nb
from tinyllm import workspace
from tinyllm.errors import WorkspaceError
from tinyllm.files import write_text
from tinyllm.parts import forget, recorded_source
from tinyllm.paths import work_dir

MAX_SUBMISSION_BYTES = 5 * 1024 * 1024  # what the grader accepts


@dataclass(frozen=True, slots=True)
class Started:
    """A day's notebook in the learner's folder, `fresh` if it was copied just now."""

    path: Path
    fresh: bool
    exercises: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reset:
    """An exercise back at its stub.

    Attributes:
        kept: the files of the old answer, the recorded one too where it is another; none if it was at its stub.
        recorded: whether there was a recorded part, which `LLM(parts="mine")` and `tinyllm status` now know no more.
    """

    path: Path
    kept: tuple[Path, ...]
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class Updated:
    """A notebook brought to the present release; `merge` and `backup` are None if it already was there."""

    path: Path
    merge: nb.Merge | None
    backup: Path | None


@dataclass(frozen=True, slots=True)
class Submission:
    """The file to hand in, and which exercises have no answer in it."""

    path: Path
    exercises: tuple[str, ...]
    unanswered: tuple[str, ...]


def start(day: str) -> Started:
    """Give the learner a copy of a day's notebook, unless there is one."""
    release = workspace.find_release(day)
    fresh = workspace.fetch_missing([release])
    return Started(workspace.own_copy(release), bool(fresh), tuple(nb.answers(nb.read(release))))


def reset(day: str, exercise: str) -> Reset:
    """Put one exercise back to its stub, and take its recorded part back; old answers are kept in work/answers_aside/.

    Raises:
        WorkspaceError: unknown day or exercise, or the learner's notebook is missing or unreadable.
    """
    release, path = _both(day)
    result, old = nb.reset(nb.read(path), nb.read(release), exercise)
    kept = []
    recorded = recorded_source(exercise)
    if recorded is not None and not any(nb.same(recorded, source) for source in old):
        old.append(recorded)
    for source in old:  # first the old answer, then the notebook: nothing can be lost in between
        aside = workspace.unused_path(work_dir() / "answers_aside" / release.stem, exercise, ".py")
        write_text(aside, source + "\n")
        kept.append(aside)
    write_text(path, nb.write(result))
    forget(exercise)
    return Reset(path, tuple(kept), recorded is not None)


def update(day: str) -> Updated:
    """Bring a day's notebook to the clone's present release and carry the learner's work over.

    The notebook as it was is kept in work/backups/.

    Raises:
        WorkspaceError: unknown day, or the learner's notebook is missing or unreadable.
    """
    release, path = _both(day)
    pristine = workspace.pristine_copy(release)
    if pristine.is_file() and pristine.read_bytes() == release.read_bytes():
        return Updated(path, None, None)
    try:
        base = nb.read(pristine)
    except WorkspaceError:  # not known or damaged: the merge keeps more than it has to
        base = None
    merge = nb.merge(nb.read(path), base, nb.read(release))
    backup = workspace.unused_path(work_dir() / "backups", release.stem, ".ipynb")
    write_text(backup, path.read_text(encoding="utf-8"))
    write_text(path, nb.write(merge.notebook))
    write_text(pristine, release.read_text(encoding="utf-8"))
    return Updated(path, merge, backup)


def started_days() -> list[str]:
    """The days that the learner has a notebook of."""
    return [release.stem for release in workspace.releases() if workspace.own_copy(release).is_file()]


def submit(day: str) -> Submission:
    """Write the one file to hand in, the notebook without outputs, to work/submit/.

    Raises:
        WorkspaceError: unknown day; the notebook is missing, unreadable or larger than the grader accepts.
    """
    release, path = _both(day)
    mine = nb.read(path)
    stubs, given = nb.answers(nb.read(release)), nb.answers(mine)
    text = nb.write(nb.to_hand_in(mine))
    size = len(text.encode("utf-8"))
    if size > MAX_SUBMISSION_BYTES:
        raise WorkspaceError(
            f"{path.name} is {size / 2**20:.1f} MiB without its outputs, and the grader takes at most "
            f"{MAX_SUBMISSION_BYTES // 2**20}: remove pasted pictures or long text from your own cells"
        )
    target = work_dir() / "submit" / release.name
    write_text(target, text)
    unanswered = tuple(name for name, stub in stubs.items() if nb.same(given.get(name, stub), stub))
    return Submission(target, tuple(stubs), unanswered)


def _both(day: str) -> tuple[Path, Path]:
    """The release of a day and the learner's copy, which must be there."""
    release = workspace.find_release(day)
    path = workspace.own_copy(release)
    if not path.is_file():
        raise WorkspaceError(f"{path} is missing: `tinyllm start {day}` makes your copy of the notebook")
    return release, path
