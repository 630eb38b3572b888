"""The calculator and the unit conversion: two of the tools."""

from __future__ import annotations

import ast
import difflib
import math
import operator
from collections.abc import Callable

LONGEST = 100
OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
# Unit -> what is measured, and its factor to the first unit of that kind.
UNITS = {
    "metres": ("length", 1.0),
    "feet": ("length", 0.3048),
    "km": ("length", 1000.0),
    "miles": ("length", 1609.344),
    "grams": ("weight", 1.0),
    "ounces": ("weight", 28.349523125),
    "kg": ("weight", 1000.0),
    "pounds": ("weight", 453.59237),
    "minutes": ("time", 1.0),
    "hours": ("time", 60.0),
    "Celsius": ("temperature", 1.0),
    "Fahrenheit": ("temperature", 5 / 9),
}
# Zero degrees Fahrenheit lie this far below zero Celsius, in Fahrenheit's degrees.
FAHRENHEIT_ZERO = 32.0
PAIRS = {
    "metres": "feet",
    "feet": "metres",
    "km": "miles",
    "miles": "km",
    "grams": "ounces",
    "ounces": "grams",
    "kg": "pounds",
    "pounds": "kg",
    "minutes": "hours",
    "hours": "minutes",
    "Celsius": "Fahrenheit",
    "Fahrenheit": "Celsius",
}


class ToolError(ValueError):
    """A call that a tool refuses; the text is for the model to read."""


def number(value: float) -> str:
    """A number as the tools write it: whole, or with one decimal.

    Raises:
        ToolError: not finite.
    """
    if not math.isfinite(value):
        raise ToolError("the result is too large")
    rounded = round(value, 1)
    return str(int(rounded)) if rounded == int(rounded) else str(rounded)


def calculate(expression: str) -> str:
    """The value of a formula of numbers, + - * / and parentheses.

    Raises:
        ToolError: anything else, or a division by zero.
    """
    if len(expression) > LONGEST:
        raise ToolError("the formula is too long")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError):
        raise ToolError(f"not a formula: {expression}") from None
    try:
        return number(_value(tree.body))
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except OverflowError:
        raise ToolError("the result is too large") from None


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ToolError("only numbers, + - * / and parentheses")


def convert(value: float, source: str, target: str) -> str:
    """`value`, given in unit `source`, in unit `target`, to one decimal.

    Raises:
        ToolError: an unknown unit, or two that measure different things.
    """
    kind, factor = _unit(source)
    other, divisor = _unit(target)
    if kind != other:
        raise ToolError(f"cannot convert {source} to {target}")
    if source == "Fahrenheit":
        value -= FAHRENHEIT_ZERO
    try:
        result = value * factor / divisor
    except OverflowError:
        raise ToolError("the number is too large") from None
    return number(result + FAHRENHEIT_ZERO if target == "Fahrenheit" else result)


def _unit(name: str) -> tuple[str, float]:
    if name in UNITS:
        return UNITS[name]
    near = difflib.get_close_matches(name, UNITS, n=1)
    raise ToolError(f"no unit {name}, did you mean {near[0]}?" if near else f"no unit {name}")
