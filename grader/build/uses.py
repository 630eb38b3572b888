"""Which names a piece of source needs, directly or through others."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping


def names_in(node: ast.AST) -> set[str]:
    """The names that a piece of source uses."""
    return {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}


def reachable(uses: Mapping[str, set[str]], names: Iterable[str]) -> set[str]:
    """`names`, and what they use directly or through others; `uses` says what each definition uses."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += uses.get(name, ())
    return found
