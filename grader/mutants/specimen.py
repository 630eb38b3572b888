"""Wrong solutions with a name, other right ones, and how they are turned into a notebook cell.

They live in `solutions/<day>/mutants/<Exercise>` and `solutions/<day>/alternates/<Exercise>.py`. A wrong solution that
differs from the right one in a few lines is an edit of it, in a `.toml` (edits.py). One with a structure of its own
stands in a `.py` beside it: a subclass of the reference that overrides what is wrong, or, where the exercise is a
function, another function (with the `@triton.jit` functions of its file that it launches).
"""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from grader.framework import Exercise
from grader.mutants.edits import read_edits
from grader.own import own_folder
from grader.usage import UsageError
from tinyllm.parts import all_parts
from tinyllm.paths import project_root

T = TypeVar("T", bound=Callable[..., Any])
Kind = Literal["mutant", "variant", "unknown bug", "alternate"]

TAG = "_grader_tag"
JIT = "triton.jit"


@dataclass(frozen=True, slots=True)
class Specimen:
    """A solution that the gate knows.

    Attributes:
        name: of the class or function.
        kind: what it is there for.
        obj: the class or function.
        path: the file that it stands in.
        mistake: for a variant, the name of the mutant whose mistake it makes.
        source: the whole cell, of an edit; empty for an object of a Python file.
        words: what an edit's entry says; the docstring says it in a Python file.
        alike: mutants that cannot be told from this one, and are named with it.
    """

    name: str
    kind: Kind
    obj: Any
    path: Path
    mistake: str = ""
    source: str = ""
    words: str = ""
    alike: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """A mutant's diagnosis, one line a paragraph."""
        if self.source:
            return self.words
        paragraphs = inspect.cleandoc(self.obj.__doc__ or "").split("\n\n")
        return "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


@dataclass(frozen=True, slots=True)
class Specimens:
    """All specimens of one exercise, by kind, in the order of their files."""

    mutants: tuple[Specimen, ...] = ()
    variants: tuple[Specimen, ...] = ()
    unknown_bugs: tuple[Specimen, ...] = ()
    alternates: tuple[Specimen, ...] = ()


@dataclass(frozen=True, slots=True)
class _Tag:
    kind: Kind
    mistake: str = ""


def mutant(obj: T) -> T:
    """Mark a wrong solution; its docstring is the diagnosis that a learner reads."""
    return _tagged(obj, _Tag("mutant"))


def variant(of: Callable[..., Any] | str) -> Callable[[T], T]:
    """Mark another way of writing a mutant's mistake, which is given or named: it must get the same diagnosis."""
    name = of if isinstance(of, str) else of.__name__
    return lambda obj: _tagged(obj, _Tag("variant", name))


def unknown_bug(obj: T) -> T:
    """Mark a solution that is wrong in a way that no mutant is: it must get no diagnosis."""
    return _tagged(obj, _Tag("unknown bug"))


def alternate(obj: T) -> T:
    """Mark a right solution by another algorithm or data structure."""
    return _tagged(obj, _Tag("alternate"))


def _tagged(obj: T, tag: _Tag) -> T:
    setattr(obj, TAG, tag)
    return obj


# ---------------------------------------------------------------- finding them


def day_folder(exercise: str) -> Path:
    """The folder `solutions/day<n>_...` of an exercise's day; an own exercise's is the one whose lesson has it.

    Raises:
        UsageError: it is not there, as in a release without solutions.
    """
    part = all_parts().get(exercise)
    if part is not None:
        found = sorted((project_root() / "solutions").glob(f"day{part.day}_*"))
    else:
        lessons = sorted(own.glob("solutions/day*/lesson.py")) if (own := own_folder()) else []
        found = [path.parent for path in lessons if f'exercise="{exercise}"' in path.read_text(encoding="utf-8")]
    if not found:
        raise UsageError(f"the solution of {exercise} is not part of this copy of the course")
    return found[0]


@cache
def specimens(exercise: Exercise) -> Specimens:
    """Every mutant, variant, unknown bug and alternate of an exercise; empty where the solutions are not there."""
    try:
        folder = day_folder(exercise.name)
    except UsageError:
        return Specimens()
    paths = (folder / "mutants" / f"{exercise.name}.py", folder / "alternates" / f"{exercise.name}.py")
    edits = folder / "mutants" / f"{exercise.name}.toml"
    found = edited_specimens(exercise, edits) if edits.is_file() else []
    return by_kind([*found, *(item for path in paths if path.is_file() for item in read_specimens(path))])


def by_kind(found: list[Specimen]) -> Specimens:
    """Specimens sorted into their kinds."""

    def of(kind: Kind) -> tuple[Specimen, ...]:
        return tuple(item for item in found if item.kind == kind)

    return Specimens(of("mutant"), of("variant"), of("unknown bug"), of("alternate"))


def read_specimens(path: Path) -> list[Specimen]:
    """The marked objects of one file, in its order."""
    module = ModuleType(path.stem)
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), vars(module))
    found = []
    for name, obj in vars(module).items():
        tag = vars(obj).get(TAG) if hasattr(obj, "__dict__") else None  # its own, not its base class's
        if isinstance(tag, _Tag):
            found.append(Specimen(name, tag.kind, obj, path, tag.mistake))
    return found


def edited_specimens(exercise: Exercise, path: Path, solution: str | None = None) -> list[Specimen]:
    """The edits of one file, each run as a cell; `solution` is the solved cell where it is known already.

    Raises:
        UsageError: an entry cannot be used.
    """
    from grader.build.sources import solved_cell  # a learner whose answer is right needs none of it

    found = []
    for edit in read_edits(path, solved_cell(exercise.name) if solution is None else solution):
        try:
            obj = as_cell(exercise, edit.source, f"{exercise.name}, {edit.name}")
        except Exception as error:
            raise UsageError(f"{path}, {edit.name} does not run: {type(error).__name__}: {error}") from error
        found.append(Specimen(edit.name, edit.kind, obj, path, edit.of, edit.source, edit.text, edit.alike))
    return found


# ---------------------------------------------------------------- as a notebook cell


def cell_source(exercise: Exercise, specimen: Specimen, solution: str | None = None) -> str:
    """What a learner would have in the exercise's cell to hand this in: the solution, then the specimen under its name.

    A specimen in Python must need nothing of its file but the imports and the kernels that it launches; an edit is a
    cell already. `solution` is the solved cell where it is known already.
    """
    if specimen.source:
        return specimen.source
    if solution is None:
        from grader.build.sources import solved_cell

        solution = solved_cell(exercise.name)
    return solution.rstrip() + "\n\n\n" + renamed_source(exercise.name, specimen)


def renamed_source(name: str, specimen: Specimen) -> str:
    """The specimen's imports, the kernels that it uses, and its own source, called `name`.

    Of its decorators `@triton.jit` alone is kept.

    Raises:
        ValueError: its file does not define it at its top level.
    """
    source = specimen.path.read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    tree = ast.parse(source)
    needed = used_kernels(tree, specimen.name)
    parts, kernels, body = [], [], ""
    for node in tree.body:
        text = "".join(lines[node.lineno - 1 : node.end_lineno])
        if isinstance(node, ast.ImportFrom) and node.module not in ("grader.mutants", "__future__"):
            kept = [alias for alias in node.names if (alias.asname or alias.name) != name]
            if kept:
                parts.append(ast.unparse(ast.ImportFrom(node.module, kept, node.level)) + "\n")
        elif isinstance(node, ast.Import):
            parts.append(text)
        elif isinstance(node, ast.FunctionDef) and node.name in needed:
            kernels.append("".join(lines[node.decorator_list[0].lineno - 1 : node.end_lineno]) + "\n\n")
        elif isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == specimen.name:
            keyword = "class" if isinstance(node, ast.ClassDef) else "def"
            jitted = [f"@{JIT}\n" for decorator in node.decorator_list if ast.unparse(decorator) == JIT]
            body = "".join(jitted) + text.replace(f"{keyword} {specimen.name}", f"{keyword} {name}", 1)
    if not body:
        raise ValueError(f"{specimen.path} does not define {specimen.name}")
    return "".join(parts) + ("\n\n" if parts else "") + "".join(kernels) + body


def used_kernels(tree: ast.Module, name: str) -> set[str]:
    """The functions with `@triton.jit` of a file that the object called `name` uses, or that these use in turn."""
    named = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    kernels = {key for key, node in named.items() if JIT in map(ast.unparse, node.decorator_list)}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        node = named.get(waiting.pop())
        used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} if node else set()
        waiting += (used & kernels) - found
        found |= used & kernels
    return found


def as_cell(exercise: Exercise, source: str, label: str, scope: dict[str, Any] | None = None) -> Any:
    """Run a cell's source as a notebook would and return the exercise's object."""
    filename = f"<{label}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"__name__": "__main__", **(scope or {})}
    exec(compile(source, filename, "exec", dont_inherit=True), namespace)
    return namespace[exercise.name]
