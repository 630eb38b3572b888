"""`{{#object file.py:Name}}` and `{{#contract file.py:Name}}`: listings from the sources, by the name of an object.

The name is the anchor, so the sources need no comments for the book's sake. The file is parsed, not imported. Of a TOML
file the name is a table's.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import dedent

from book.preprocessor.context import Context
from book.preprocessor.faults import FaultError

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def object_listing(args: str, context: Context) -> str:
    """The whole source of one or more objects of a file: `path.py:Class.method other_function`."""
    return listing(args, context, whole_source)


def contract_listing(args: str, context: Context) -> str:
    """Signatures and docstrings without the bodies: what a learner's own version must promise."""
    return listing(args, context, contract)


def listing(args: str, context: Context, take: Callable[[Sequence[str], ast.stmt], str]) -> str:
    """A fenced block with the file's name above it; several objects are parted by an empty line."""
    path, colon, names = args.partition(":")
    if not colon or not names.split():
        raise FaultError(f"listing {args!r} names no object; write path.py:Name, or path.py:Name.method")
    file = context.file(path.strip())
    lines = file.read_text(encoding="utf-8").splitlines()
    if file.suffix == ".toml":
        pieces = [toml_table(lines, name, path) for name in names.split()]
    else:
        tree = parse(file)
        pieces = [dedent(take(lines, find(tree, name, path))).strip("\n") for name in names.split()]
    code = "\n\n".join(pieces)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
    shown = ", ".join(f"<code>{name}</code>" for name in names.split())
    source = f'<p class="listing-source">{shown} in <code>{path.strip()}</code></p>'
    return f"{source}\n\n{fence}{'toml' if file.suffix == '.toml' else 'python'}\n{code}\n{fence}"


def toml_table(lines: Sequence[str], name: str, path: str) -> str:
    """The table `[name]` of a TOML file, up to the next one.

    Raises:
        FaultError: there is none.
    """
    heads = [number for number, line in enumerate(lines) if re.fullmatch(r"\[[\w.]+\]", line)]
    for head, following in zip(heads, [*heads[1:], len(lines)], strict=True):
        if lines[head] == f"[{name}]":
            return "\n".join(lines[head:following]).strip()
    known = ", ".join(lines[head].strip("[]") for head in heads)
    raise FaultError(f"no table [{name}] in {path.strip()}; there are: {known or 'none'}")


def parse(file: Path) -> ast.Module:
    """The syntax tree of a Python file.

    Raises:
        FaultError: it is not Python.
    """
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise FaultError(f"{file.name} is not valid Python: {error}") from None


def find(tree: ast.Module, qualified_name: str, path: str) -> ast.stmt:
    """The class, function or assignment called `Outer.inner` in a module.

    Raises:
        FaultError: there is none, or more than one.
    """
    body: Sequence[ast.stmt] = tree.body
    node: ast.stmt | None = None
    for name in qualified_name.split("."):
        found = [statement for statement in body if name in defined_names(statement)]
        if len(found) != 1:
            known = ", ".join(sorted({n for statement in body for n in defined_names(statement)}))
            problem = f"{len(found)} objects called" if found else "no object called"
            raise FaultError(f"{problem} {qualified_name} in {path.strip()}; there are: {known or 'none'}")
        node = found[0]
        body = node.body if isinstance(node, ast.ClassDef) else []
    assert node is not None
    return node


def defined_names(statement: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    match statement:
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            return [statement.name]
        case ast.Assign():
            return [target.id for target in statement.targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case _:
            return []


def first_line(node: ast.stmt) -> int:
    """The first line of a statement, decorators included, from 1."""
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def whole_source(lines: Sequence[str], node: ast.stmt) -> str:
    """All lines of a statement, with its decorators."""
    return "\n".join(lines[first_line(node) - 1 : node.end_lineno])


def contract(lines: Sequence[str], node: ast.stmt) -> str:
    """A function without its body, or a class without the bodies of its methods and without its private ones."""
    if isinstance(node, FunctionNode):
        return head(lines, node)
    if not isinstance(node, ast.ClassDef):
        return whole_source(lines, node)
    pieces = ["\n".join(lines[first_line(node) - 1 : node.body[0].lineno - 1])]
    for position, statement in enumerate(node.body):
        if isinstance(statement, FunctionNode):
            if not statement.name.startswith("_") or statement.name == "__init__":
                pieces += ["", head(lines, statement)]
        elif isinstance(statement, ast.Expr) and position > 0:
            continue  # a string under a field
        else:
            after_text = position == 1 and is_docstring(node.body[0])
            pieces += [""] * after_text + [whole_source(lines, statement)]
    return "\n".join(pieces)


def head(lines: Sequence[str], node: FunctionNode) -> str:
    """Signature and docstring of a function, with `...` for the rest."""
    first = node.body[0]
    if first.lineno == node.lineno:  # written on one line
        return whole_source(lines, node)
    end = first.end_lineno if is_docstring(first) else first.lineno - 1
    kept = lines[first_line(node) - 1 : end]
    if is_docstring(first) and len(node.body) == 1:
        return "\n".join(kept)
    return "\n".join([*kept, " " * first.col_offset + "..."])


def is_docstring(statement: ast.stmt) -> bool:
    """Whether a statement is a bare string."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
