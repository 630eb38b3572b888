"""The text of a cell with its syntax tree: where nodes stand, and what the text is after an edit."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

#: Around what needs parentheses only where the syntax tree would otherwise be another.
OPEN, CLOSE = "\ue000", "\ue001"

Function = ast.FunctionDef


@dataclass(frozen=True, slots=True)
class Edit:
    """A piece of text, from `start` to `stop`, and what takes its place."""

    start: int
    stop: int
    text: str


class Source:
    """The text of a cell.

    Raises:
        SyntaxError: it is no Python.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self.lines = text.splitlines(keepends=True)
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self._starts = [0, *accumulate(map(len, self.lines))]

    def start(self, node: ast.AST) -> int:
        """Where a node begins."""
        return self._offset(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def stop(self, node: ast.AST) -> int:
        """Where the text behind a node begins."""
        return self._offset(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def _offset(self, line: int, column: int) -> int:
        """Python counts columns in bytes."""
        return self._starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def of(self, node: ast.AST) -> str:
        """A node's text, without parentheses around it."""
        return self.text[self.start(node) : self.stop(node)]

    def line_start(self, line: int) -> int:
        """Where a line begins; lines count from 1."""
        return self._starts[line - 1]

    def replaced(self, node: ast.AST, text: str) -> Edit:
        """The edit that puts `text` in the place of an expression, and of parentheses that are its own."""
        start, stop = self.start(node), self.stop(node)
        while re.search(r"(^|[^\w)\]])\($", self.text[max(0, start - 2) : start]) and self.text[stop : stop + 1] == ")":
            start, stop = start - 1, stop + 1
        return Edit(start, stop, grouped(text))

    def after(self, edit: Edit, function: Function) -> str:
        """A function's lines, from its `def` on, after an edit to it, with the parentheses that are needed only."""
        start, stop = self.line_start(function.lineno), self.line_start((function.end_lineno or 0) + 1)
        return fewest_parentheses(self.text[start : edit.start] + edit.text + self.text[edit.stop : stop])


def grouped(text: str) -> str:
    """Text that stays one operand wherever it is put."""
    return f"{OPEN}{text}{CLOSE}"


def fewest_parentheses(text: str) -> str:
    """Text in which each pair of OPEN and CLOSE is a pair of parentheses, or nothing where that means the same."""
    if OPEN not in text:
        return text
    meaning = tree_key(text.replace(OPEN, "(").replace(CLOSE, ")"))
    bare = re.sub(f"[{OPEN}{CLOSE}]", "", text)
    if tree_key(bare) == meaning:
        return bare
    while OPEN in text:
        start = text.rindex(OPEN)  # an innermost one: the next CLOSE is its own
        stop = text.index(CLOSE, start)
        before, inside, behind = text[:start], text[start + 1 : stop], text[stop + 1 :]
        rest = (before + "\0" + behind).replace(OPEN, "(").replace(CLOSE, ")")
        need = tree_key(rest.replace("\0", inside)) != meaning
        text = before + (f"({inside})" if need else inside) + behind
    return text


@lru_cache(maxsize=4)
def tree_key(text: str) -> str:
    """The syntax tree of a text; of what is no Python a key that only the same text has."""
    try:
        return ast.dump(ast.parse(below_something(text)))
    except SyntaxError:
        return text


def below_something(text: str) -> str:
    """The lines of a function, indented or not, as Python that stands alone."""
    return f"if True:\n{text}" if text[:1] == " " else text


def functions_in(tree: ast.AST, lines: set[int]) -> Iterator[Function]:
    """The outermost functions with a statement on one of these lines."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            if any(item.lineno in lines for item in own_statements(node)):
                yield node
        else:
            yield from functions_in(node, lines)


def own_statements(function: Function) -> list[ast.stmt]:
    """A function's body without its docstring."""
    return function.body[1:] if ast.get_docstring(function) is not None else function.body


def names_in(node: ast.AST, *contexts: type[ast.expr_context]) -> set[str]:
    """The names that are read, bound or deleted below a node."""
    return {item.id for item in ast.walk(node) if isinstance(item, ast.Name) and isinstance(item.ctx, contexts)}
