"""The mutations of an expression: operators, constants, bounds, arguments, calls, names."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from grader.mutation.source import Edit, Source, grouped

SYMBOLS: dict[type[ast.AST], str] = {
    **{ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="},
    **{ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in", ast.And: "and", ast.Or: "or"},
    **{ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**"},
    **{ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>", ast.MatMult: "@"},
}
ORDERS = ("<", "<=", ">", ">=", "==", "!=")
OPPOSITES = {"is": "is not", "is not": "is", "in": "not in", "not in": "in"}
ARITHMETIC = {
    **{"+": ("-", "*"), "-": ("+",), "*": ("+", "/"), "/": ("*", "//"), "//": ("/", "*", "%"), "%": ("//", "*")},
    **{"**": ("*",), "&": ("|",), "|": ("&",)},
}
UNORDERED = {"+", "*", "&", "|", "^"}  # operands of these may be swapped

#: Functions and methods that are taken for each other.
RELATED = {
    **{"min": ("max",), "max": ("min",), "minimum": ("maximum",), "maximum": ("minimum",), "amax": ("amin",)},
    **{"log": ("log2",), "log2": ("log",), "exp": ("exp2",), "exp2": ("exp",), "any": ("all",), "all": ("any",)},
    **{"popleft": ("pop",), "appendleft": ("append",), "zeros": ("ones",), "ones": ("zeros",), "sum": ("max",)},
    **{"sqrt": ("rsqrt",), "logaddexp": ("logaddexp2", "maximum"), "floor": ("ceil",), "ceil": ("floor",)},
    **{"long": ("int",), "double": ("float",), "float": ("half",), "zeros_like": ("empty_like",)},
    **{"index_copy_": ("index_add_",), "empty_like": ("zeros_like",)},
}
DTYPES = {
    **{"float32": ("float16", "bfloat16"), "float16": ("float32", "bfloat16"), "bfloat16": ("float16", "float32")},
    **{"float64": ("float32",), "int64": ("int32",), "int32": ("int64",), "uint8": ("float32",), "int8": ("int32",)},
}
BUILTINS = {"min", "max", "any", "all", "sum"}
#: Methods of which an answer may forget the call, and functions that may give back their first argument as it is.
METHODS = {
    *("clone", "contiguous", "copy", "detach", "to", "float", "half", "bfloat16", "double", "long", "int", "clamp"),
    *("clamp_min", "clamp_max", "masked_fill", "nan_to_num", "transpose", "flatten", "reshape", "view", "abs", "exp"),
    *("log", "softmax", "trans", "expand_as", "unsqueeze", "squeeze", "repeat_interleave", "diff"),
}
FUNCTIONS = {
    *("list", "tuple", "set", "sorted", "reversed", "int", "float", "bool", "min", "max", "abs", "trans", "maximum"),
    *("minimum", "exp", "exp2", "log", "log2", "sqrt", "nan_to_num"),
}
SYMMETRIC = {"min", "max", "minimum", "maximum", "logaddexp", "isinstance"}
#: Words of names of which an answer may take the one for the other, where both names are in use.
PARTNERS = (
    *(("k", "v"), ("key", "value"), ("keys", "values"), ("source", "target"), ("start", "stop"), ("starts", "stops")),
    *(("first", "last"), ("a", "b"), ("shared", "own"), ("token", "head"), ("slot", "token"), ("running", "waiting")),
    *(("parent", "child"), ("scheduled", "preempted"), ("positions", "slots"), ("highest", "total")),
)
INFINITY = ("0.0", "-1e4", 'float("inf")')

Operator = Callable[[Source, ast.AST, set[str]], Iterator[Edit]]


def expression_edits(source: Source, statement: ast.stmt, names: set[str]) -> Iterator[Edit]:
    """Every mutation of the expressions of a statement; those of statements within it are left out.

    Args:
        names: what the function's names and attributes are called.
    """
    waiting: list[ast.AST] = list(_parts(statement))
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.stmt | ast.JoinedStr):
            continue
        if _is_infinity(node):
            yield from (source.replaced(node, text) for text in INFINITY)
            continue
        for operator in OPERATORS:
            yield from operator(source, node, names)
        if not _is_negative(node):
            waiting[:0] = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr_context)]


def _parts(statement: ast.stmt) -> Iterator[ast.AST]:
    """The expressions of a statement that do something: no annotation, and not the words of an error."""
    for name, value in ast.iter_fields(statement):
        if name in ("annotation", "exc", "msg", "decorator_list", "args", "returns"):
            continue
        yield from (item for item in (value if isinstance(value, list) else [value]) if isinstance(item, ast.AST))


# ---------------------------------------------------------------- operators


def _between(source: Source, left: ast.AST, right: ast.AST, symbol: str) -> tuple[int, int]:
    """Where the operator between two operands stands."""
    start = source.stop(left)
    pattern = re.sub(r"\\? ", r"\\s+", re.escape(symbol))
    if symbol.isalpha():
        pattern = rf"\b{pattern}\b"
    found = re.search(pattern, source.text[start : source.start(right)])
    assert found is not None, f"no {symbol} between {source.of(left)} and {source.of(right)}"
    return start + found.start(), start + found.end()


def comparisons(source: Source, node: ast.AST, names: set[str]) -> Iterator[Edit]:
    """`a < b` as every other comparison."""
    if not isinstance(node, ast.Compare):
        return
    left = node.left
    for operator, right in zip(node.ops, node.comparators, strict=True):
        symbol = SYMBOLS[type(operator)]
        start, stop = _between(source, left, right, symbol)
        for other in ORDERS if symbol in ORDERS else [OPPOSITES[symbol]]:
            if other != symbol:
                yield Edit(start, stop, other)
        left = right


def arithmetic(source: Source, node: ast.AST, names: set[str]) -> Iterator[Edit]:
    """`a - b` as `a + b`, `b - a`, `a` and `b`."""
    if not isinstance(node, ast.BinOp):
        return
    symbol = SYMBOLS[type(node.op)]
    left, right = grouped(source.of(node.left)), grouped(source.of(node.right))
    for other in ARITHMETIC.get(symbol, ()):
        yield source.replaced(node, f"{left} {other} {right}")
    if symbol not in UNORDERED:
        yield source.replaced(node, f"{right} {symbol} {left}")
    yield source.replaced(node, left)
    yield source.replaced(node, right)


def booleans(source: Source, node: ast.AST, names: set[str]) -> Iterator[Edit]:
    """`a and b` as `a or b`, `a` and `b`; `not a` and `-a` as `a`."""
    if isinstance(node, ast.UnaryOp) and not _is_negative(node):
        yield source.replaced(node, source.of(node.operand))
    if not isinstance(node, ast.BoolOp):
        return
    symbol = SYMBOLS[type(node.op)]
    values = [grouped(source.of(value)) for value in node.values]
    yield source.replaced(node, (" or " if symbol == "and" else " and ").join(values))
    for index in range(len(values)):
        yield source.replaced(node, f" {symbol} ".join(values[:index] + values[index + 1 :]))


def conditions(source: Source, node: ast.AST, names: set[str]) -> Iterator[Edit]:
    """`a if c else b` as `a`, as `b`, and with `not c`; a comprehension without its `if`."""
    if isinstance(node, ast.IfExp):
        yield source.replaced(node, source.of(node.body))
        yield source.replaced(node, source.of(node.orelse))
        yield from negated(source, node.test)
    if isinstance(node, ast.comprehension):
        for test in node.ifs:
            yield source.replaced(test, "True")
            yield from negated(source, test)


def negated(source: Source, test: ast.expr) -> Iterator[Edit]:
    """`not c`, unless another operator makes that of the condition."""
    compares = isinstance(test, ast.Compare) and len(test.ops) == 1
    if not compares and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
        yield source.replaced(test, f"not {grouped(source.of(test))}")


# ---------------------------------------------------------------- constants and bounds


def constants(source: Source, node: ast.AST, names: set[str]) -> Iterator[Edit]:
    """Numbers one more and one less, the other truth value."""
    value = node.value if isinstance(node, ast.Constant) else None
    if _is_negative(node):
        assert isinstance(node, ast.UnaryOp)
        assert isinstance(node.operand, ast.Constant)
        value = -node.operand.value  # type: ignore[operator]
    if isinstance(value, bool):
        yield source.replaced(node, str(not value))
    elif isinstance(value, int | float):
        for change in (1, -1):
            if not _is_another_comparison(source, node, change):
                yield source.replaced(node, str(value + change))


def _is_another_comparison(source: Source, node: ast.AST, change: int) -> bool:
    """Whether a number so changed says what another comparison does: `n < 4` is `n <= 3`."""
    compare = source.parents[node]
    if not isinstance(compare, ast.Compare) or compare.comparators != [node]:
        return False
    same = {(ast.Lt, 1), (ast.LtE, -1), (ast.Gt, -1), (ast.GtE, 1)}
    return (type(compare.ops[0]), change) in same


def _is_negative(node: ast.AST) -> bool:
    """Whether a node is a number below 0, which Python reads as minus a number."""
    if not isinstance(node, ast.UnaryOp) or not isinstance(node.op, ast.USub):
        return False
    value = node.operand.value if isinstance(node.operand, ast.Constant) else None
    return isinstance(value, int | float)


def _is_infinity(node: ast.AST) -> bool:
    """Whether a node is minus infinity, in one of the ways of writing it."""
    return isinstance(node, ast.expr) and ast.unparse(node) in ("float('-inf')", "-torch.inf", "-math.inf")


def bounds(source: Source, node: ast.AST, names: set[str]) -> Iterator[Edit]:
    """Bounds of slices and ranges one more and one less; a bound of a slice, or all of it, left out."""
    found: list[ast.expr] = []
    if isinstance(node, ast.Slice):
        ends = [end for end in (node.lower, node.upper) if end is not None]
        found = ends
        for end in ends:
            yield Edit(source.start(end), source.stop(end), "")
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        found = node.args
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        indices = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if all(isinstance(index, ast.Slice) for index in indices):
            yield source.replaced(node, source.of(node.value))
    for end in found:
        if not isinstance(end, ast.Constant | ast.Starred) and not _is_negative(end):
            for change in ("+ 1", "- 1"):
                yield source.replaced(end, f"{grouped(source.of(end))} {change}")


# ---------------------------------------------------------------- calls


def called(node: ast.AST) -> str:
    """The last name of what a call calls; empty where it has none."""
    if not isinstance(node, ast.Call):
        return ""
    return getattr(node.func, "attr", "") or getattr(node.func, "id", "")


def arguments(source: Source, node: ast.AST, names: set[str]) -> Iterator[Edit]:
    """Neighboring arguments swapped, named ones left out."""
    if not isinstance(node, ast.Call):
        return
    if called(node) not in SYMMETRIC:
        yield from neighbors(source, node.args)
    everything = sorted([*node.args, *(item.value for item in node.keywords)], key=source.start)
    for item in node.keywords:
        if item.arg is None or (item.arg == "strict" and ast.unparse(item.value) == "False"):
            continue  # `strict=False` is what it is without the word
        before = [other for other in everything if source.start(other) < source.start(item)]
        start = source.stop(before[-1]) if before else source.stop(node.func) + 1
        stop = source.stop(item.value)
        if not before and len(everything) > 1:
            stop = source.start(everything[1]) if everything[1] in node.args else source.start(node.keywords[1])
        yield Edit(start, stop, "")


def neighbors(source: Source, nodes: list[ast.expr]) -> Iterator[Edit]:
    """Each pair of neighbors in another order."""
    for left, right in pairwise(nodes):
        start, stop = source.stop(left), source.start(right)
        text = source.of(right) + source.text[start:stop] + source.of(left)
        yield Edit(source.start(left), source.stop(right), text)


def calls(source: Source, node: ast.AST, names: set[str]) -> Iterator[Edit]:
    """A related function, and what a call was made on, or one of its arguments, in place of the call."""
    name = called(node)
    if not isinstance(node, ast.Call):
        return
    for other in RELATED.get(name, ()) if isinstance(node.func, ast.Attribute) or name in BUILTINS else ():
        yield Edit(source.stop(node.func) - len(name), source.stop(node.func), other)
    if isinstance(node.func, ast.Attribute) and name in METHODS and ast.unparse(node.func.value) not in ("tl", "torch"):
        yield source.replaced(node, source.of(node.func.value))
    elif name in FUNCTIONS and node.args:
        for argument in node.args if name in SYMMETRIC else node.args[:1]:
            if not isinstance(argument, ast.Starred | ast.GeneratorExp):
                yield source.replaced(node, source.of(argument))
    elif name == "where" and len(node.args) == 3:
        for argument in node.args[1:]:
            yield source.replaced(node, source.of(argument))


# ---------------------------------------------------------------- names


def dtypes(source: Source, node: ast.AST, names: set[str]) -> Iterator[Edit]:
    """Another dtype."""
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("torch", "tl"):
        for other in DTYPES.get(node.attr, ()):
            yield Edit(source.stop(node) - len(node.attr), source.stop(node), other)


def partners(source: Source, node: ast.AST, names: set[str]) -> Iterator[Edit]:
    """K for V, source for target: a name's partner where both are in use."""
    if not isinstance(node, ast.Name | ast.Attribute):
        return
    name = node.id if isinstance(node, ast.Name) else node.attr
    words = name.split("_")
    for pair in PARTNERS:
        for one, other in (pair, pair[::-1]):
            swapped = "_".join(other if word == one else word for word in words)
            if swapped != name and swapped in names:
                yield Edit(source.stop(node) - len(name), source.stop(node), swapped)


def axes(source: Source, node: ast.AST, names: set[str]) -> Iterator[Edit]:
    """`x[:, None]` as `x[None, :]`."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
        items = node.slice.elts
        for left, right in pairwise(items):
            if {type(left), type(right)} == {ast.Slice, ast.Constant}:
                yield from neighbors(source, [left, right])


OPERATORS: tuple[Operator, ...] = (
    *(comparisons, arithmetic, booleans, conditions, constants, bounds, arguments, calls, dtypes, partners, axes),
)
