"""What a user wants of the tools, as small expressions, and the order of calls that reaches it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

from data.tasks.tool_arithmetic import number
from data.tasks.tool_calls import ToolCall
from data.tasks.tool_pool import POOL, Tool
from data.tasks.toolbox import BUSY, NO_RESULTS, NO_ROWS, Passage, Toolbox, search
from data.world.facts import World
from data.world.phrases import answer, no_answer
from data.world.schema import Relation

SAY: dict[str, str] = POOL["say"]
ASKED_BACK = ", did you mean "
# How alike two names are that differ in a letter.
SAME_NAME = 0.85


@dataclass(frozen=True, slots=True)
class Say:
    """Nothing to call: the answer is this text, and `value` is the part of it that counts, if not all."""

    text: str
    value: str = ""


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


@dataclass(frozen=True, slots=True)
class Answer:
    """What the oracle says in the end; `value` is the part that counts, or empty where all of it does."""

    text: str
    value: str = ""

    def accepts(self, text: str) -> bool:
        """Whether another answer says the same: it has the value as a word or number, or is this text."""
        if not self.value:
            return text.strip() == self.text
        return re.search(rf"(?<![\w.-]){re.escape(self.value)}(?!\w|\.\d)", text) is not None


class Unanswered(Exception):
    """The tools do not have it; the text is what to tell the user."""


class Oracle:
    """The policy that the models learn: which tool, with what, and what to say in the end.

    It decides from the results, and is told by the toolbox whether a passage states the fact that it looks for.
    """

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox
        self.by_meaning: dict[str, Tool] = {tool.meaning: tool for tool in toolbox.tools.values()}

    def solve(self, goal: Goal) -> Generator[ToolCall, str, Answer]:
        """Yield calls and receive their results; return the answer."""
        if isinstance(goal, Say):
            return Answer(goal.text, goal.value)
        if needs(goal, set(self.by_meaning)) - set(self.by_meaning):
            return Answer(SAY["impossible"])
        try:
            return (yield from self._solve(goal))
        except Unanswered as reply:
            return Answer(str(reply))

    def _solve(self, goal: Goal) -> Generator[ToolCall, str, Answer]:
        if isinstance(goal, Lookup):
            name, value = yield from self._lookup(goal)
            return Answer(answer(goal.relation, name, value), str(value))
        if isinstance(goal, Combine):
            total = yield from self._combine(goal)
            return Answer(SAY[goal.name].format(value=total), total)
        if isinstance(goal, Convert) and isinstance(goal.of, Combine):
            total = yield from self._combine(goal.of)
            unit = goal.of.first.relation.unit
            result, _, _ = yield from self._convert(json.loads(total), unit, goal.unit)
            return Answer(SAY[goal.of.name].format(value=f"{result} {goal.unit}"), result)
        if isinstance(goal, Convert):
            assert isinstance(goal.of, Lookup)
            name, value = yield from self._lookup(goal.of)
            result, _, _ = yield from self._convert(value, goal.of.relation.unit, goal.unit)
            return Answer(answer(replace(goal.of.relation, unit=goal.unit), name, result), result)
        if isinstance(goal, Compute):
            value = yield from self._call("calculate", expression=goal.expression)
            if value.startswith("Error"):
                raise Unanswered(SAY["no_value"])
            return Answer(SAY["arithmetic"].format(sum=goal.expression, value=value), value)
        assert isinstance(goal, ConvertValue)
        result, source, target = yield from self._convert(goal.value, goal.source, goal.target)
        parts = {"value": number(goal.value), "from": source, "to": target, "result": result}
        return Answer(SAY["conversion"].format(**parts), result)

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
        """The name under which search finds the entity: a person's may be misspelt, so the last name is tried too."""
        found, query = name, name
        result = yield from self._call("search", query=query)
        if result == NO_RESULTS and relation.kind == "person":
            query = name.split()[-1]
            result = yield from self._call("search", query=query)
            titles = [hit.title for hit in self._hits(query, relation.kind)]
            found = next(iter(difflib.get_close_matches(name, titles, n=1, cutoff=SAME_NAME)), "")
        hits = [hit for hit in self._hits(query, relation.kind) if hit.title == found]
        if not hits:
            raise Unanswered(SAY["not_found"].format(name=name))
        if not any(relation.name in hit.relations for hit in hits):
            raise Unanswered(no_answer(relation, found))
        return found

    def _hits(self, query: str, kind: str) -> list[Passage]:
        """What a search found about entities of a kind."""
        entities = self.toolbox.world.entities
        return [hit for hit in search(self.toolbox.passages, query) if entities[hit.title].kind == kind]
