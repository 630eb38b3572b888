"""Which parts of the engine are the learner's and which the reference.

`@part` marks what learners rebuild. `use(obj)` records the source of the learner's own object; the course's checks
stamp that source as right or not. Engines ask `resolve` once, when they are made; no module is ever patched.
"""

from __future__ import annotations
import __future__

import hashlib
import inspect
import json
import linecache
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, TypeVar

from tinyllm.errors import PartError, UnknownNameError, WorkspaceError
from tinyllm.files import write_text
from tinyllm.names import did_you_mean
from tinyllm.paths import work_dir

T = TypeVar("T", bound=Callable[..., Any])

#: Modules that hold parts, in the order in which the course builds them.
PART_MODULES = (
    "tinyllm.kv_cache.sizing",
    "tinyllm.kv_cache.allocator",
    "tinyllm.kv_cache.block_table",
    "tinyllm.kv_cache.storage",
    "tinyllm.kv_cache.copy_on_write",
    "tinyllm.kv_cache.prefix_cache",
    "tinyllm.engine.paged_attention",
    "tinyllm.kernels.reference",
    "tinyllm.kernels.store_kv",
    "tinyllm.kernels.paged_decode",
    "tinyllm.kernels.paged_decode_split",
    "tinyllm.kernels.paged_prefill",
    "tinyllm.engine.scheduler",
)

_REFERENCE: dict[str, Part] = {}


@dataclass(frozen=True, slots=True)
class Part:
    """A thing that learners rebuild: its name, the day of the course, and the reference object."""

    name: str
    day: int
    reference: Any


@dataclass(frozen=True, slots=True)
class PartStatus:
    """Whose code a part is: `owner` is "yours" or "reference", `reason` says why."""

    name: str
    day: int
    owner: str
    reason: str


def part(day: int) -> Callable[[T], T]:
    """Mark a class or function as one that learners rebuild on the given day."""

    def mark(obj: T) -> T:
        _REFERENCE[obj.__name__] = Part(obj.__name__, day, obj)
        return obj

    return mark


def all_parts() -> dict[str, Part]:
    """Every part by name, in the order in which the course builds them."""
    for module in PART_MODULES:
        import_module(module)
    in_order = sorted(_REFERENCE.values(), key=lambda item: PART_MODULES.index(item.reference.__module__))
    return {item.name: item for item in in_order}


def find_part(name: str) -> Part:
    """The part called `name`.

    Raises:
        UnknownNameError: there is none; the message lists those that there are.
    """
    parts = all_parts()
    if name not in parts:
        listed = ", ".join(parts)
        raise UnknownNameError(f"no part is called {name!r}. The parts are: {listed}{did_you_mean(name, parts)}")
    return parts[name]


def is_reference(obj: Any) -> bool:
    """Whether an object is the course's own part, and not one that a learner wrote."""
    return any(obj is item.reference for item in all_parts().values())


# ---------------------------------------------------------------- recording


def source_of(obj: Any) -> str:
    """The source of the notebook cell (or file) that defined a class or function.

    `inspect.getsource` cannot see notebook classes, so the cell is found through the code of one of their functions.

    Raises:
        WorkspaceError: the object was not written in Python source that can be read back.
    """
    functions = [obj] if inspect.isfunction(obj) else [f for f in vars(obj).values() if inspect.isfunction(f)]
    for function in functions:
        lines = linecache.getlines(function.__code__.co_filename)
        if lines:
            return "".join(lines)
    raise WorkspaceError(f"the source of {obj!r} cannot be read; define it in a notebook cell and run that cell")


def source_hash(source: str) -> str:
    """A name for a source text that changes when the text does."""
    return hashlib.sha256(source.strip().encode()).hexdigest()[:16]


def use(obj: Any) -> None:
    """Record your own part, so that `LLM(parts="mine")` and `tinyllm status` know it.

    The whole cell is kept: helpers and imports that the part needs belong into the same cell.

    Raises:
        UnknownNameError: no part has that name.
        WorkspaceError: its source cannot be read, or the record cannot be written.
    """
    name = find_part(getattr(obj, "__name__", repr(obj))).name
    if is_reference(obj):
        print(f"{name}: this is the reference itself; nothing to record.")
        return
    source = source_of(obj)
    write_text(source_file(name), source)
    print(f"{name}: recorded. {own_reason(name)[1].capitalize()}.")


def stamp(name: str, source: str, right: bool, reason: str = "") -> None:
    """Record what a check said about this very source.

    Args:
        reason: why it is not right, in words for `status`, where it did not simply fail.
    """
    text = json.dumps({"source_hash": source_hash(source), "right": right, "reason": reason}, indent=1)
    write_text(stamp_file(name), text + "\n")


def source_file(name: str) -> Path:
    """Where the learner's source of a part is kept."""
    return work_dir() / "parts" / f"{name}.py"


def stamp_file(name: str) -> Path:
    """Where the result of the last check of a part is kept."""
    return work_dir() / "parts" / f"{name}.stamp.json"


def own_reason(name: str) -> tuple[bool, str]:
    """Whether the learner's own source of a part may be used, and why or why not."""
    if not source_file(name).is_file():
        return False, "no answer recorded"
    try:
        record = json.loads(stamp_file(name).read_text(encoding="utf-8"))
        checked_hash, right = record["source_hash"], record["right"]
    except (OSError, ValueError, KeyError, TypeError):
        return False, "recorded but not checked yet"
    if checked_hash != source_hash(source_file(name).read_text(encoding="utf-8")):
        return False, "changed since its last check"
    return (True, "checked and right") if right else (False, str(record.get("reason") or "its last check failed"))


def status() -> list[PartStatus]:
    """Whose code each part would be with `parts="mine"`."""
    rows = []
    for item in all_parts().values():
        mine, reason = own_reason(item.name)
        rows.append(PartStatus(item.name, item.day, "yours" if mine else "reference", reason))
    return rows


# ---------------------------------------------------------------- resolving


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects an engine is built from. `parts["BlockAllocator"]` is a class, the learner's or the reference's."""

    chosen: Mapping[str, Any]
    mine: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Any:
        return self.chosen[name]

    def __str__(self) -> str:
        others = [name for name in self.chosen if name not in self.mine]
        return f"Your parts: {', '.join(self.mine) or 'none'}. Reference: {', '.join(others) or 'none'}."


def resolve(parts: str | Mapping[str, Any] = "reference") -> Parts:
    """Choose the parts of an engine.

    Args:
        parts: "reference"; "mine", which takes each recorded part whose stamp is right and prints the choice in
            one line; or a mapping of names to objects to use in place of the reference.

    Raises:
        UnknownNameError: an unknown choice or part name.
        PartError: a recorded part cannot be loaded.
    """
    chosen = {name: item.reference for name, item in all_parts().items()}
    if isinstance(parts, Mapping):
        for name in parts:
            find_part(name)
        return Parts({**chosen, **parts}, tuple(parts))
    if parts == "reference":
        return Parts(chosen)
    if parts != "mine":
        raise UnknownNameError(f'parts is {parts!r}; give "reference", "mine" or a mapping of part names to objects')
    mine = tuple(row.name for row in status() if row.owner == "yours")
    resolved = Parts({**chosen, **{name: load(name) for name in mine}}, mine)
    print(resolved)
    return resolved


def load(name: str) -> Any:
    """Run the learner's recorded source and return the part that it defines.

    Raises:
        PartError: the source does not run, or does not define the part.
    """
    source = source_file(name).read_text(encoding="utf-8")
    filename = file_label(name)
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"__name__": f"your_{name}"}
    with name_failing_part():
        exec(compile_part(source, filename), namespace)
    if name not in namespace:
        raise PartError(f"{source_file(name)} does not define {name}; run the exercise's cell and `use({name})` again")
    return namespace[name]


def compile_part(source: str, filename: str) -> CodeType:
    """Compile a cell as notebooks run it: annotations are not evaluated, since they may name other cells' classes."""
    return compile(source, filename, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)


def file_label(name: str) -> str:
    """The file name that tracebacks show for a learner's part."""
    return f"<your {name}>"


@contextmanager
def name_failing_part() -> Iterator[None]:
    """Turn an error that comes out of a learner's part into one that names the part and its line."""
    try:
        yield
    except PartError:
        raise
    except Exception as error:
        frame = failing_frame(error.__traceback__)
        if frame is None:
            raise
        raise PartError(
            f"{frame.filename.strip('<>')} failed in line {frame.lineno} ({frame.line}): "
            f"{type(error).__name__}: {error}. Check it again in its notebook, or build the engine with "
            'parts="reference".'
        ) from error


def failing_frame(tb: TracebackType | None) -> traceback.FrameSummary | None:
    """The innermost frame of a traceback that is a learner's own code."""
    frames = [f for f in traceback.extract_tb(tb) if f.filename.startswith("<your ")]
    return frames[-1] if frames else None
