"""What a user wants of the tools, as small expressions, and the order of calls that reaches it."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

from data.tasks.tool_arithmetic import number
from data.tasks.tool_calls import ToolCall
from data.tasks.tool_pool import POOL, Tool
from data.tasks.toolbox import BUSY, NO_RESULTS, NO_ROWS, Toolbox
from data.world.facts import World
from data.world.phrases import answer, no_answer
from data.world.schema import Relation

SAY: dict[str, str] = POOL["say"]
ASKED_BACK = ", did you mean "


@dataclass(frozen=True, slots=True)
class Say:
    """Nothing to call: the answer is this text."""

    text: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """The value of a relation of a named entity, or of the entity that another lookup names."""

    relation: Relation
    subject: str | Lookup


@dataclass(frozen=True, slots=True)
class Combine:
    """Two looked up numbers in a formula ("{0} - {1}"); `name` is the answer's template."""

    first: Lookup
    second: Lookup
    formula: str
    name: str


@dataclass(frozen=True, slots=True)
class Convert:
    """A looked up number, or two of them combined, in another unit."""

    of: Lookup | Combine
    unit: str


@dataclass(frozen=True, slots=True)
class Compute:
    """The value of a formula that the user gave."""

    expression: str


@dataclass(frozen=True, slots=True)
class ConvertValue:
    """A number that the user gave in another unit."""

    value: int
    source: str
    target: str


Goal = Say | Lookup | Convert | Combine | Compute | ConvertValue
Calls = Generator[ToolCall, str, Any]


def subject_of(world: World, lookup: Lookup) -> str:
    """The name of the entity that a lookup is about."""
    subject = lookup.subject
    return subject if isinstance(subject, str) else str(value_of(world, subject))


def value_of(world: World, lookup: Lookup) -> int | str:
    """What a lookup finds."""
    return world.entities[subject_of(world, lookup)].facts[lookup.relation.name]


def lookups(goal: Goal) -> list[Lookup]:
    """The lookups of a goal in the order in which they are carried out."""
    if isinstance(goal, Lookup):
        return [*(lookups(goal.subject) if isinstance(goal.subject, Lookup) else []), goal]
    if isinstance(goal, Convert):
        return lookups(goal.of)
    return lookups(goal.first) + lookups(goal.second) if isinstance(goal, Combine) else []


def source_of(relation: Relation, meanings: set[str]) -> str:
    """Where a fact is looked up: with both listed, numbers come from the tables and the rest from search."""
    if {"search", "sql"} <= meanings:
        return "sql" if relation.type in ("count", "year") else "search"
    return "sql" if "sql" in meanings else "search"


def needs(goal: Goal, meanings: set[str]) -> set[str]:
    """The meanings of the tools that a goal needs, when those in `meanings` are listed."""
    needed = {source_of(lookup.relation, meanings) for lookup in lookups(goal)}
    if isinstance(goal.of if isinstance(goal, Convert) else goal, Combine | Compute):
        needed.add("calculate")
    if isinstance(goal, Convert | ConvertValue):
        needed.add("convert")
    return needed


class Unanswered(Exception):
    """The tools do not have it; the text is what to tell the user."""


class Oracle:
    """The policy that the models learn: which tool, with what, and what to say in the end.

    It decides from the results, and is told by the toolbox whether a passage states the fact that it looks for.
    """

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox
        self.by_meaning: dict[str, Tool] = {tool.meaning: tool for tool in toolbox.tools.values()}

    def solve(self, goal: Goal) -> Generator[ToolCall, str, str]:
        """Yield calls and receive their results; return the answer."""
        if isinstance(goal, Say):
            return goal.text
        if needs(goal, set(self.by_meaning)) - set(self.by_meaning):
            return SAY["impossible"]
        try:
            return (yield from self._solve(goal))
        except Unanswered as reply:
            return str(reply)

    def _solve(self, goal: Goal) -> Calls:
        if isinstance(goal, Lookup):
            name, value = yield from self._lookup(goal)
            return answer(goal.relation, name, value)
        if isinstance(goal, Combine):
            total = yield from self._combine(goal)
            return SAY[goal.name].format(value=total)
        if isinstance(goal, Convert) and isinstance(goal.of, Combine):
            total = yield from self._combine(goal.of)
            unit = goal.of.first.relation.unit
            result, _, _ = yield from self._convert(json.loads(total), unit, goal.unit)
            return SAY[goal.of.name].format(value=f"{result} {goal.unit}")
        if isinstance(goal, Convert):
            assert isinstance(goal.of, Lookup)
            name, value = yield from self._lookup(goal.of)
            result, _, _ = yield from self._convert(value, goal.of.relation.unit, goal.unit)
            return answer(replace(goal.of.relation, unit=goal.unit), name, result)
        if isinstance(goal, Compute):
            value = yield from self._call("calculate", expression=goal.expression)
            if value.startswith("Error"):
                raise Unanswered(SAY["no_value"])
            return SAY["arithmetic"].format(sum=goal.expression, value=value)
        assert isinstance(goal, ConvertValue)
        result, source, target = yield from self._convert(goal.value, goal.source, goal.target)
        return SAY["conversion"].format(value=number(goal.value), **{"from": source, "to": target, "result": result})

    def _combine(self, goal: Combine) -> Generator[ToolCall, str, str]:
        _, first = yield from self._lookup(goal.first)
        _, second = yield from self._lookup(goal.second)
        return (yield from self._call("calculate", expression=goal.formula.format(first, second)))

    def _call(self, meaning: str, **values: Any) -> Generator[ToolCall, str, str]:
        tool = self.by_meaning[meaning]
        call = ToolCall(tool.name, tool.bind(**values))
        result = yield call
        if result == BUSY:
            result = yield call
        return result

    def _convert(self, value: Any, source: str, target: str) -> Generator[ToolCall, str, tuple[str, str, str]]:
        """The result, and the units as the tool knows them: a misspelt one is corrected as the tool suggests."""
        result = yield from self._call("convert", value=value, **{"from": source, "to": target})
        if ASKED_BACK in result:
            wrong, suggested = result.removeprefix("Error: no unit ").removesuffix("?").split(ASKED_BACK)
            source, target = (suggested if unit == wrong else unit for unit in (source, target))
            result = yield from self._call("convert", value=value, **{"from": source, "to": target})
        return result, source, target

    def _lookup(self, goal: Lookup) -> Generator[ToolCall, str, tuple[str, Any]]:
        """The name under which the entity was found, and the value."""
        name = goal.subject
        if isinstance(name, Lookup):
            _, name = yield from self._lookup(name)
        assert isinstance(name, str)
        if source_of(goal.relation, set(self.by_meaning)) == "search":
            name = yield from self._search(goal.relation, name)
        else:
            statement = f"SELECT {goal.relation.name} FROM {goal.relation.kind} WHERE name = '{name}'"
            result = yield from self._call("sql", statement=statement)
            if result == NO_ROWS:
                raise Unanswered(SAY["not_found"].format(name=name))
        return name, value_of(self.toolbox.world, Lookup(goal.relation, name))

    def _search(self, relation: Relation, name: str) -> Generator[ToolCall, str, str]:
        query = name
        result = yield from self._call("search", query=query)
        if result == NO_RESULTS and relation.kind == "person":
            query = name.split()[-1]
            result = yield from self._call("search", query=query)
        hits = [] if result == NO_RESULTS else self.toolbox.index.search(query)
        entities = self.toolbox.world.entities
        titles = [hit.title for hit in hits if entities[hit.title].kind == relation.kind]
        found = name if name in titles or not titles else titles[0]
        if not titles or (found != name and query == name):
            raise Unanswered(SAY["not_found"].format(name=name))
        if not any(hit.title == found and relation.name in hit.relations for hit in hits):
            raise Unanswered(no_answer(relation, found))
        return found
