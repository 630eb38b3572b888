"""Answers that are equal to the reference or to each other, whatever their names, comments and layout.

Equality is a reason for a person to look, never for a mark: short exercises have one natural answer.
"""

from __future__ import annotations

import ast
import hashlib
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.build.course import Day
from grader.build.sources import marked_source, with_stubs, without_markers
from grader.marks.kept import kept_records

Answers = Mapping[tuple[str, str], Mapping[str, str]]  # by (student, day), the sources by exercise


@dataclass(frozen=True, slots=True)
class Alike:
    """A group of equal answers.

    Attributes:
        students: who gave it.
        reference: whether it is equal to the reference, too.
        size: syntax nodes of the answer: the more, the less likely is chance.
    """

    day: str
    exercise: str
    students: tuple[str, ...]
    reference: bool
    size: int


def find_alike(answers: Answers, references: Mapping[str, str], stubs: Mapping[str, str]) -> list[Alike]:
    """The groups of equal answers, the largest answers first.

    Args:
        answers: what was graded.
        references: the solved cell of each exercise.
        stubs: the cell as it is handed out; an answer that is still the stub is no answer.
    """
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    sizes: dict[str, int] = {}
    known = {name: fingerprint(source)[0] for name, source in references.items()}
    untouched = {name: fingerprint(source)[0] for name, source in stubs.items()}
    for (student, day), sources in answers.items():
        for name, source in sources.items():
            mark, size = fingerprint(source)
            if mark and mark != untouched.get(name):
                groups[day, name, mark].append(student)
                sizes[mark] = size
    found = [
        Alike(day, name, tuple(sorted(students)), mark == known.get(name), sizes[mark])
        for (day, name, mark), students in groups.items()
        if len(students) > 1 or mark == known.get(name)
    ]
    return sorted(found, key=lambda one: (-one.size, one.day, one.exercise, one.students))


def alike_in(out: Path, course: Sequence[Day]) -> list[Alike]:
    """The groups of equal answers in an output folder.

    Raises:
        ResultsError: `out` holds no results.
    """
    return look_alikes({(one.student, one.day): one.answers for one in kept_records(out)}, course)


def look_alikes(answers: Answers, course: Sequence[Day]) -> list[Alike]:
    """The groups of equal answers of some days."""
    references: dict[str, str] = {}
    stubs: dict[str, str] = {}
    for day in course:
        for name, spec in day.exercises.items():
            marked = marked_source(day, spec)
            references[name], stubs[name] = without_markers(marked), with_stubs(marked)
    return find_alike(answers, references, stubs)


def fingerprint(source: str) -> tuple[str, int]:
    """A name for the structure of a source, and its number of syntax nodes; ("", 0) where it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in a student's strings
            tree = ast.parse(source)
        tree = _Normalizer().visit(tree)
        text = ast.dump(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "", 0
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(), sum(1 for _ in ast.walk(tree))


class _Normalizer(ast.NodeTransformer):
    """Takes out what does not make two answers different: imports, docstrings, annotations, names of variables."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def visit_Module(self, node: ast.Module) -> ast.Module:
        """A whole cell, without its imports."""
        node.body = [item for item in node.body if not isinstance(item, ast.Import | ast.ImportFrom)]
        self._rename_bound(node)
        self.generic_visit(node)
        node.body = without_docstring(node.body)
        return node

    def _rename_bound(self, tree: ast.AST) -> None:
        """Give every argument and every assigned name a number, in an order that structure alone decides."""
        for item in ast.walk(tree):
            name = ""
            if isinstance(item, ast.arg) and item.arg not in ("self", "cls"):
                name = item.arg
            elif isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
                name = item.id
            if name:
                self.names.setdefault(name, f"v{len(self.names)}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """A function without docstring and annotations."""
        node.returns = None
        self.generic_visit(node)
        node.body = without_docstring(node.body)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """A class without docstring."""
        self.generic_visit(node)
        node.body = without_docstring(node.body)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """An argument by its number."""
        return ast.arg(self.names.get(node.arg, node.arg))

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        """A keyword of a call, which may name a renamed argument."""
        self.generic_visit(node)
        node.arg = self.names.get(node.arg, node.arg) if node.arg else None
        return node

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """A variable by its number."""
        node.id = self.names.get(node.id, node.id)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """`x: int = 1` is `x = 1`."""
        self.generic_visit(node)
        if node.value is None:
            return ast.Pass()
        return ast.Assign([node.target], node.value)


def without_docstring(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Statements without a text that stands alone, of which a docstring is one; never empty."""
    kept = [
        item
        for item in body
        if not (
            isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)
        )
    ]
    return kept or [ast.Pass()]
