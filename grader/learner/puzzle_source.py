"""A wrong solution as the cell of a puzzle: in one piece, without what names or describes the mistake."""

from __future__ import annotations

import ast
import re

from grader.build.uses import names_in, reachable

Definition = ast.ClassDef | ast.FunctionDef


def puzzle_source(cell: str, solution: str, name: str) -> str:
    """A wrong solution's cell as one definition of `name` and of what it uses.

    A subclass of what the cell defines before it is merged into that; docstrings and comments are left out, and names
    that the solution does not have are made neutral.

    Returns:
        The source; empty where the mistake calls `super()`, which cannot be merged.
    """
    tree = ast.parse(cell)
    kept: dict[str, ast.stmt] = {}
    for node in tree.body:
        key = node.name if isinstance(node, Definition) else ast.unparse(node)
        old = kept.get(key)
        if isinstance(node, ast.ClassDef) and isinstance(old, ast.ClassDef) and name in map(ast.unparse, node.bases):
            merge(old, node)
        elif old is None or isinstance(node, Definition):
            kept.pop(key, None)
            kept[key] = node
    needed = reachable({key: names_in(node) for key, node in kept.items()}, [name])
    body = [node for node in kept.values() if not isinstance(node, Definition) or node.name in needed]
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            node.names = [a for a in node.names if (a.asname or a.name) in needed - kept.keys()]
    body = [node for node in body if not isinstance(node, ast.ImportFrom) or node.names]
    body.sort(key=lambda node: not isinstance(node, ast.Import | ast.ImportFrom))
    body.sort(key=lambda node: not (isinstance(node, ast.ImportFrom) and node.module == "__future__"))
    source = ast.unparse(ast.Module([without_docstrings(node) for node in body], []))
    if "super()" in source:
        return ""
    known = {node.name for node in ast.walk(ast.parse(solution)) if isinstance(node, Definition)}
    new = [node.name for node in body if isinstance(node, Definition) and node.name not in {*known, name}]
    for number, own in enumerate(new, 1):
        source = re.sub(rf"\b{re.escape(own)}\b", f"helper_{number}", source)
    return source


def merge(base: ast.ClassDef, changes: ast.ClassDef) -> None:
    """Put a subclass's methods into its base class, each in the place of the one that it overrides."""
    places = {node.name: place for place, node in enumerate(base.body) if isinstance(node, ast.FunctionDef)}
    for node in changes.body:
        if isinstance(node, ast.FunctionDef) and node.name in places:
            base.body[places[node.name]] = node
        elif not isinstance(node, ast.Expr | ast.Pass):
            base.body.append(node)


def without_docstrings(node: ast.stmt) -> ast.stmt:
    """A statement without the docstrings in it."""
    for inner in ast.walk(node):
        if isinstance(inner, Definition) and ast.get_docstring(inner) is not None:
            inner.body = inner.body[1:] or [ast.Pass()]
    return node
