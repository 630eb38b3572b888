"""The text of an exercise's cell, taken from the reference in `tinyllm`: solved, marked for nbgrader, and stubbed."""

from __future__ import annotations

import ast
import builtins
import re
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec as find_module
from pathlib import Path

from grader.build.course import Day, LessonError, Spec, find_spec

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = 'raise NotImplementedError("your code here")'
FUTURE = "from __future__ import annotations"

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True, slots=True)
class ExerciseSources:
    """The cell of one exercise.

    Attributes:
        solution: the solved cell, without markers.
        marked: the solved cell with nbgrader's solution markers, as in the instructor's notebook.
        stub: the cell as learners get it.
        body_lines: lines between the markers, for each stubbed function; an inline solution counts as one.
    """

    name: str
    day: str
    points: float
    minutes: int
    difficulty: int
    solution: str
    marked: str
    stub: str
    body_lines: dict[str, int]


def exercise_sources(name: str, root: Path | None = None) -> ExerciseSources:
    """The cell texts of the exercise called `name`.

    Args:
        root: the folder with `solutions/`; None takes this checkout.

    Raises:
        LessonError: there is no such exercise, or its reference cannot be turned into a cell.
    """
    return sources_of(*find_spec(name, root))


def solved_cell(name: str) -> str:
    """The solved cell of an exercise, without markers, as `exercise_sources` gives it; the stub costs more to make.

    Raises:
        LessonError: there is no such exercise, or its reference cannot be turned into a cell.
    """
    return without_markers(marked_source(*find_spec(name)))


def sources_of(day: Day, spec: Spec) -> ExerciseSources:
    """The cell texts of one exercise of a day.

    Raises:
        LessonError: its reference cannot be turned into a cell.
    """
    marked = marked_source(day, spec)
    return ExerciseSources(
        name=spec.name,
        day=day.name,
        points=spec.points,
        minutes=spec.minutes,
        difficulty=spec.difficulty,
        solution=without_markers(marked),
        marked=marked,
        stub=with_stubs(marked),
        body_lines=solution_lengths(spec, marked),
    )


def marked_source(day: Day, spec: Spec) -> str:
    """The solved cell with solution markers: from the lesson where it is inline, else from the reference's module."""
    if not spec.module:
        return next(c.source for c in day.cells if c.exercise is spec)
    found = find_module(spec.module)
    if found is None or found.origin is None:
        raise LessonError(f"{day.name}: {spec.name} is imported from {spec.module}, which is no module")
    return cell_from_module(Path(found.origin).read_text(encoding="utf-8"), spec, tuple(day.exercises))


@lru_cache(maxsize=64)
def cell_from_module(module_text: str, spec: Spec, same_day: tuple[str, ...]) -> str:
    """Cut one object out of a module, with the imports that it needs, and mark the bodies that learners write.

    A function brings the functions along that `stub` names beside it: it launches these kernels.

    Names of `same_day` are not imported: they are the learner's own, defined in earlier cells.
    """
    tree = ast.parse(module_text)
    nodes = _definitions(tree, spec)
    lines = module_text.splitlines()
    bodies = {node: list(_bodies(node, spec, lines)) for node in nodes}
    missing = [name for name in spec.stub if name not in {f.name for node in nodes for f in _functions(node)}]
    if missing:
        known = [f.name for node in nodes for f in _functions(node)]
        raise LessonError(f"{spec.name} has no function {missing[0]} to stub; it has: {', '.join(known) or 'none'}")
    stubbed = [f for node in nodes for f in _functions(node) if f.name in (spec.stub or (spec.name,))]
    head = imports(tree, nodes, spec.module, same_day, documented_errors(stubbed))
    pieces = [head] if head else []
    pieces += [_marked_lines(node, bodies[node], lines) for node in nodes]
    return "\n\n\n".join("\n".join(piece) for piece in pieces)


def _marked_lines(node: Definition, bodies: list[tuple[int, int]], lines: list[str]) -> list[str]:
    """The lines of one object, with markers around these slices of `lines`."""
    start = _first_line(node) - 1
    own = lines[start : max([node.end_lineno or 0, *(last for _, last in bodies)])]
    for first, last in sorted(bodies, reverse=True):
        indent = " " * _indent(lines[first])
        own[last - start : last - start] = [indent + END]
        own[first - start : first - start] = [indent + BEGIN]
    return own


def _definitions(tree: ast.Module, spec: Spec) -> list[Definition]:
    """The exercise's own object, and the functions named in `stub` that stand beside it, in the module's order."""
    own = _definition(tree, spec)
    beside = [] if isinstance(own, ast.ClassDef) else spec.stub
    return [n for n in tree.body if n is own or (isinstance(n, ast.FunctionDef) and n.name in beside)]


def body_slices(module_text: str, spec: Spec) -> list[tuple[int, int]]:
    """Where in a module's lines the bodies are that learners write for an exercise, as slices."""
    lines = module_text.splitlines()
    return sorted(body for node in _definitions(ast.parse(module_text), spec) for body in _bodies(node, spec, lines))


def _definition(tree: ast.Module, spec: Spec) -> Definition:
    for node in tree.body:
        if isinstance(node, Definition) and node.name == spec.name:
            return node
    raise LessonError(f"{spec.module} defines no class or function {spec.name} at its top level")


def _first_line(node: Definition) -> int:
    """The first line of an object, its decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _functions(node: Definition) -> list[ast.FunctionDef]:
    """A class's methods, or the function itself."""
    return [f for f in (node.body if isinstance(node, ast.ClassDef) else [node]) if isinstance(f, ast.FunctionDef)]


def _bodies(node: Definition, spec: Spec, lines: list[str]) -> Iterator[tuple[int, int]]:
    """The slices of `lines` that are the bodies to stub: everything after the docstring, comments included."""
    for function in _functions(node):
        if function.name not in (spec.stub or (spec.name,)):
            continue
        documented = ast.get_docstring(function) is not None
        if not documented or len(function.body) < 2:
            raise LessonError(
                f"{spec.name}: {function.name} needs a docstring (what learners are told) and a body to stub"
            )
        first, last = function.body[0].end_lineno or 0, function.end_lineno or 0
        while not lines[first].strip():
            first += 1  # blank lines after the docstring stay above the marker
        indent = function.body[0].col_offset
        while last < len(lines) and lines[last].lstrip().startswith("#") and _indent(lines[last]) >= indent:
            last += 1  # a comment that ends the body belongs to it, though the syntax tree does not say so
        yield first, last


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


# ---------------------------------------------------------------- imports


def documented_errors(functions: Iterable[ast.FunctionDef]) -> set[str]:
    """The errors of the course that functions promise to raise, in the `Raises` of their docstrings."""
    sections = [(ast.get_docstring(function) or "").partition("Raises:\n")[2] for function in functions]
    names = {name for section in sections for name in re.findall(r"^ {4}(\w+):", section, re.MULTILINE)}
    return names - set(vars(builtins))


def imports(
    tree: ast.Module,
    nodes: Sequence[Definition],
    module: str,
    same_day: Collection[str],
    errors: Collection[str] = (),
) -> list[str]:
    """The import lines that a cell with `nodes` needs, in the usual order.

    That is what the module imports and they use, what they use of the module's own names, and `errors`: a learner may
    want to raise or catch one even where the reference leaves that to a part below, whose module has it.
    """
    used = {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)} | set(errors)
    used -= set(same_day)
    plain: list[tuple[str, str]] = []
    named: dict[str, list[str]] = {}
    future = False
    for statement in tree.body:
        if isinstance(statement, ast.Import):
            plain += [(a.name, _alias(a)) for a in statement.names if (a.asname or a.name.split(".")[0]) in used]
        elif isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            future = True
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            wanted = [_alias(a) for a in statement.names if (a.asname or a.name) in used]
            if wanted:
                named.setdefault(statement.module, []).extend(wanted)
            below = find_module(statement.module) if statement.module.startswith("tinyllm.") and errors else None
            if below is not None and below.origin is not None:
                there = set(_own_names(ast.parse(Path(below.origin).read_text(encoding="utf-8"))))
                named.setdefault(statement.module, []).extend(there & set(errors))
    siblings = sorted(used & set(_own_names(tree)) - {node.name for node in nodes})
    if siblings:
        named.setdefault(module, []).extend(siblings)
    return _sorted_imports(future, plain, named)


def _alias(alias: ast.alias) -> str:
    return alias.name + (f" as {alias.asname}" if alias.asname else "")


def _own_names(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        if isinstance(statement, Definition):
            yield statement.name
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def _sorted_imports(future: bool, plain: Iterable[tuple[str, str]], named: dict[str, list[str]]) -> list[str]:
    groups: list[list[str]] = [[FUTURE] if future else [], [], [], []]
    for module, text in sorted(plain):
        groups[_group(module)].append(f"import {text}")
    for module in sorted(module for module, names in named.items() if names):
        groups[_group(module)].append(f"from {module} import {', '.join(sorted(set(named[module])))}")
    text = "\n\n".join("\n".join(group) for group in groups if group)
    return text.splitlines()


def _group(module: str) -> int:
    top = module.split(".")[0]
    return 1 if top in sys.stdlib_module_names else 3 if top == "tinyllm" else 2


# ---------------------------------------------------------------- markers


def without_markers(marked: str) -> str:
    """A solved cell without the solution markers."""
    return "\n".join(line for line in marked.splitlines() if line.strip() not in (BEGIN, END))


def with_stubs(marked: str) -> str:
    """A cell with every marked solution replaced by the stub, by nbgrader's own rule."""
    from nbformat.v4 import new_code_cell
    from nbgrader.preprocessors import ClearSolutions

    clear = ClearSolutions(code_stub={"python": STUB}, enforce_metadata=False)
    cell, _ = clear.preprocess_cell(new_code_cell(marked), {"language": "python"}, 0)
    return str(cell.source)


def solution_lengths(spec: Spec, marked: str) -> dict[str, int]:
    """Lines between each pair of markers, blank lines and comments included, by the function they are in."""
    names = [spec.name] if not spec.stub else list(spec.stub)
    functions = [n for n in ast.walk(ast.parse(textwrap.dedent(marked))) if isinstance(n, ast.FunctionDef)]
    lengths: dict[str, int] = {}
    begin = 0
    for number, line in enumerate(marked.splitlines(), 1):
        if line.strip() == BEGIN:
            begin = number
        elif line.strip() == END:
            around = [f.name for f in functions if f.lineno <= begin <= (f.end_lineno or 0) and f.name in names]
            name = around[-1] if around else spec.name
            lengths[name] = lengths.get(name, 0) + number - begin - 1
    return lengths
