"""Every first-order mutation of an answer, each as the text of a cell and as lines to read."""

from __future__ import annotations

import ast
import marshal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType
from zlib import crc32

from grader.build.sources import BEGIN, END, exercise_sources
from grader.framework import Exercise
from grader.mutants import cell_source, specimens
from grader.mutation.expressions import expression_edits
from grader.mutation.source import Edit, Function, Source, below_something, functions_in, own_statements
from grader.mutation.statements import blocks_of, statement_edits

REFERENCE = "reference"
FUTURE_FLAG = annotations.compiler_flag  # the future statement of a cell is not among a function's lines


@dataclass(frozen=True, slots=True)
class Target:
    """A right answer to be mutated.

    Attributes:
        name: "reference", or the alternate's name.
        text: its cell.
        lines: numbers of the cell's lines that may be changed, from 1.
    """

    name: str
    text: str
    lines: frozenset[int]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A change to a right answer. The first five attributes tell it from all others of its exercise.

    Attributes:
        target: "reference", or the alternate's name.
        function: in which it is.
        before, after: the lines that differ.
        nth: which of the places in the function with these lines it is, from 1.
        line: the first of these lines in the cell.
        text: the cell with the change.
        same_as: the mutation that compiles to the same code and is run in its place, if there is one.
    """

    target: str
    function: str
    before: str
    after: str
    nth: int
    line: int
    text: str
    same_as: Mutation | None = None

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What tells it from all others of its exercise."""
        return self.target, self.function, self.before, self.after, self.nth

    def part(self, count: int) -> int:
        """In which of `count` parts of all mutations it is, from 0: the same wherever it is asked."""
        return crc32(repr(self.key).encode()) % count


def targets(exercise: Exercise) -> list[Target]:
    """The exercise's reference, of which the bodies that learners write may be changed, and its alternates."""
    sources = exercise_sources(exercise.name)
    found = [Target(REFERENCE, sources.solution, frozenset(marked_lines(sources.marked)))]
    above = len(sources.solution.rstrip().splitlines())
    for item in specimens(exercise).alternates:
        text = cell_source(exercise, item, sources.solution)
        found.append(Target(item.name, text, frozenset(range(above + 1, len(text.splitlines()) + 1))))
    return found


def marked_lines(marked: str) -> Iterator[int]:
    """The numbers that the lines between the markers have in the cell without markers."""
    number, inside = 0, False
    for line in marked.splitlines():
        if line.strip() in (BEGIN, END):
            inside = line.strip() == BEGIN
            continue
        number += 1
        if inside:
            yield number


def mutations(target: Target) -> list[Mutation]:
    """Every mutation of a target, each once, in the order of its lines."""
    source = Source(target.text)
    found: list[Mutation] = []
    for function in functions_in(source.tree, set(target.lines)):
        found += mutations_of(target, source, function)
    return sorted(found, key=lambda item: item.line)


def mutations_of(target: Target, source: Source, function: Function) -> Iterator[Mutation]:
    """Every mutation of one function."""
    start, stop = source.line_start(function.lineno), source.line_start((function.end_lineno or 0) + 1)
    original = source.text[start:stop]
    seen, compiled = {original}, code_key(original)
    by_code: dict[bytes, Mutation] = {}
    places: Counter[tuple[str, str, str]] = Counter()
    for edit in edits(source, function):
        body = source.after(edit, function)
        code = code_key(body)
        if body in seen or code is None or code == compiled:
            continue
        seen.add(body)
        line, before, after = difference(original, body)
        place = (function.name, before, after)
        places[place] += 1
        text = source.text[:start] + body + source.text[stop:]
        number = function.lineno - 1 + line
        made = Mutation(target.name, *place, places[place], number, text, by_code.get(code))
        by_code.setdefault(code, made)
        yield made


def edits(source: Source, function: Function) -> Iterator[Edit]:
    """Every edit to a function's body."""
    kinds = ((ast.Name, "id"), (ast.Attribute, "attr"), (ast.arg, "arg"))
    names = {getattr(node, name) for node in ast.walk(function) for kind, name in kinds if isinstance(node, kind)}
    for block in blocks_of(own_statements(function)):
        for statement in block:
            yield from expression_edits(source, statement, names)
    yield from statement_edits(source, function)


def code_key(text: str) -> bytes | None:
    """What Python makes of a text, without lines and file names; None where it is no Python."""
    try:
        code = compile(below_something(text), "", "exec", FUTURE_FLAG, dont_inherit=True)
    except SyntaxError:
        return None
    return marshal.dumps(placeless(code), 2)


def placeless(code: CodeType) -> CodeType:
    """Code that does not know where it was written."""
    constants = tuple(placeless(item) if isinstance(item, CodeType) else item for item in code.co_consts)
    return code.replace(co_consts=constants, co_firstlineno=1, co_linetable=b"", co_filename="")


def difference(old: str, new: str) -> tuple[int, str, str]:
    """The first line that differs, and the lines that do, of both texts; where all is new, with the line behind it."""
    a, b = old.splitlines(), new.splitlines()
    start = next(i for i, (x, y) in enumerate(zip([*a, None], [*b, None], strict=False)) if x != y)
    stop = 0
    while stop < min(len(a), len(b)) - start and a[-1 - stop] == b[-1 - stop]:
        stop += 1
    if start == len(a) - stop and stop:
        stop -= 1
    before, after = a[start : len(a) - stop], b[start : len(b) - stop]
    indent = min((len(line) - len(line.lstrip()) for line in [*before, *after] if line.strip()), default=0)
    shown = ["\n".join(line[indent:].rstrip() for line in lines) for lines in (before, after)]
    return start + 1, shown[0], shown[1]
