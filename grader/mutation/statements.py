"""The mutations of statements: left out, condition negated, moved, a return too early."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from grader.mutation.expressions import ARITHMETIC, SYMBOLS, negated, neighbors
from grader.mutation.source import Edit, Function, Source, names_in, own_statements

JUMPS = (ast.Raise, ast.Return, ast.Continue, ast.Break)

Block = list[ast.stmt]


def statement_edits(source: Source, function: Function) -> Iterator[Edit]:
    """Every mutation of a function's statements as such."""
    for block in blocks_of(own_statements(function)):
        for index, statement in enumerate(block):
            yield from deleted(source, function, block, index)
            yield from moved(source, block, index)
            yield from changed(source, statement)
    if returns_nothing(function):
        yield from early_returns(source, function)


def blocks_of(block: Block) -> Iterator[Block]:
    """A block of statements and those inside, outermost first."""
    if not block:
        return
    yield block
    for statement in block:
        for name in ("body", "orelse", "finalbody"):
            yield from blocks_of(getattr(statement, name, []))
        for handler in getattr(statement, "handlers", []):
            yield from blocks_of(handler.body)


def lines_of(source: Source, statement: ast.stmt) -> tuple[int, int]:
    """Where the lines of a statement begin and end, comments behind it included."""
    return source.line_start(statement.lineno), source.line_start((statement.end_lineno or 0) + 1)


def deleted(source: Source, function: Function, block: Block, index: int) -> Iterator[Edit]:
    """The block without one of its statements, unless a name would then be bound nowhere."""
    statement = block[index]
    if isinstance(statement, ast.Pass | ast.FunctionDef) or leaves_a_name_unbound(function, statement):
        return
    start, stop = lines_of(source, statement)
    indent = " " * statement.col_offset
    if source.text[start : source.start(statement)].strip():
        return  # it shares its line
    if len(block) > 1 or source.text.startswith("elif", source.start(statement)):
        yield Edit(start, stop, "")
    elif not is_body_of_a_bare_if(function, block):  # the whole `if` goes in another mutation
        yield Edit(start, stop, f"{indent}pass\n")


def leaves_a_name_unbound(function: Function, statement: ast.stmt) -> bool:
    """Whether a name that is used elsewhere in the function is bound by this statement alone."""
    inside = {id(node) for node in ast.walk(statement)}
    bound = {item.arg for item in ast.walk(function.args) if isinstance(item, ast.arg)}
    used: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and id(node) not in inside:
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
    return bool((names_in(statement, ast.Store) - bound) & used)


def is_body_of_a_bare_if(function: Function, block: Block) -> bool:
    """Whether a block is the body of an `if` without `else`."""
    return any(isinstance(node, ast.If) and node.body is block and not node.orelse for node in ast.walk(function))


def moved(source: Source, block: Block, index: int) -> Iterator[Edit]:
    """A guard behind the statement that it should stand before."""
    guard = block[index]
    if not isinstance(guard, ast.If) or guard.orelse or not isinstance(guard.body[-1], JUMPS):
        return
    if index + 1 < len(block) and not isinstance(block[index + 1], JUMPS):
        start, middle = lines_of(source, guard)
        stop = lines_of(source, block[index + 1])[1]
        text = source.text + "\n"
        yield Edit(start, stop, text[middle:stop].rstrip("\n") + "\n" + text[start:middle])


def changed(source: Source, statement: ast.stmt) -> Iterator[Edit]:
    """What is left to change in one statement."""
    if isinstance(statement, ast.If | ast.While):
        yield from negated(source, statement.test)
    if isinstance(statement, ast.If):
        yield from always(source, statement)
    if isinstance(statement, ast.AugAssign):
        symbol = SYMBOLS[type(statement.op)]
        start = source.stop(statement.target)
        found = re.search(re.escape(f"{symbol}="), source.text[start:])
        assert found is not None
        for other in [f"{other}=" for other in ARITHMETIC.get(symbol, ())] + ["="]:
            yield Edit(start + found.start(), start + found.end(), other)
    if isinstance(statement, ast.Continue | ast.Break):
        other = "break" if isinstance(statement, ast.Continue) else "continue"
        yield Edit(source.start(statement), source.stop(statement), other)
    if isinstance(statement, ast.Assign | ast.Return):
        values = [statement.value, *getattr(statement, "targets", [])]
        tuples = [value for value in values if isinstance(value, ast.Tuple)]
        if tuples:
            yield from neighbors(source, tuples[0].elts)


def always(source: Source, statement: ast.If) -> Iterator[Edit]:
    """The body whatever the condition says; of a guard that would be nonsense."""
    if statement.orelse or not isinstance(statement.body[-1], JUMPS):
        yield source.replaced(statement.test, "True")
    if statement.orelse:
        yield source.replaced(statement.test, "False")


def returns_nothing(function: Function) -> bool:
    """Whether a function returns no value and yields none."""
    return not any(
        isinstance(node, ast.Yield | ast.YieldFrom) or (isinstance(node, ast.Return) and node.value is not None)
        for node in ast.walk(function)
    )


def early_returns(source: Source, function: Function) -> Iterator[Edit]:
    """A return before each statement."""
    for block in blocks_of(own_statements(function)):
        for statement in block:
            start = source.line_start(statement.lineno)
            if not source.text.startswith("elif", source.start(statement)) and not isinstance(statement, ast.Return):
                yield Edit(start, start, " " * statement.col_offset + "return\n")
