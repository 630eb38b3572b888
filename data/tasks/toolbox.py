"""Real tools over a small world: search, SQL, a calculator and unit conversion."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from data.tasks.ranking import rank, words
from data.tasks.tool_arithmetic import ToolError, calculate, convert
from data.tasks.tool_pool import Tool
from data.world.database import as_sql
from data.world.facts import World
from data.world.passages import passage

NO_RESULTS = "No results."
NO_ROWS = "No rows."
BUSY = "Error: busy, try again."
TOP = 2
MAX_ROWS, MAX_TEXT = 5, 1000
# A query of the tasks takes about a hundred steps of SQLite's machine.
MAX_SQL_STEPS = 100_000
MAX_SQL_LENGTH = 10_000
SQL_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
TITLE_WEIGHT = 5  # times
STOP_WORDS = {"a", "an", "the", "of", "in", "and"}
PYTHON_TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "number": (int, float)}

# An entity's name and a relation's.
Fact = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Passage:
    """A text about one entity, and which of its relations it states."""

    title: str
    relations: tuple[str, ...]
    text: str


def write_passages(
    rng: random.Random, world: World, stated: Collection[Fact], hidden: Collection[Fact], held_out: bool
) -> list[Passage]:
    """A passage or two about every entity: two facts or more, all the `stated` ones and none of the `hidden`."""
    passages = []
    for entity in world.entities.values():
        relations = [name for name in entity.facts if (entity.name, name) in stated]
        others = [name for name in entity.facts if name not in relations and (entity.name, name) not in hidden]
        relations += rng.sample(others, min(len(others), max(0, rng.choice((2, 3, 3, 4)) - len(relations))))
        rng.shuffle(relations)
        cut = rng.choice((2, 3)) if len(relations) > 3 else len(relations)
        for part in (relations[:cut], relations[cut:]):
            if part:
                passages.append(Passage(entity.name, tuple(part), passage(rng, entity, part, held_out)))
    rng.shuffle(passages)
    return passages


def search(passages: Sequence[Passage], query: str, top: int = TOP) -> list[Passage]:
    """The best `top` of the passages that hold all the words of the query, best first; a title counts several times."""
    wanted = set(words(query)) - STOP_WORDS
    if not wanted:
        return []
    hits = [passage for passage in passages if wanted <= set(words(f"{passage.title} {passage.text}"))]
    order = rank(" ".join(wanted), [f"{f'{hit.title} ' * TITLE_WEIGHT}{hit.text}" for hit in hits])
    return [hits[index] for index in order[:top]]


class Toolbox:
    """Runs the calls of one conversation.

    Args:
        world: what the SQL tables hold.
        tools: the listed tools.
        passages: what search finds.
        kinds: the kinds of entity that have an SQL table.
        busy: the calls, counted from 0, that are answered with `BUSY`.
    """

    def __init__(
        self,
        world: World,
        tools: Sequence[Tool],
        passages: Sequence[Passage],
        kinds: Sequence[str],
        busy: Collection[int] = (),
    ) -> None:
        self.world = world
        self.tools = {tool.name: tool for tool in tools}
        self.passages = passages
        self.kinds = kinds
        self.busy = busy
        self.num_calls = 0

    @cached_property
    def database(self) -> sqlite3.Connection:
        """A table a kind, made at the first query; it can only be read, and for a bounded time."""
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.executescript(as_sql(self.world, self.kinds))
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_SQL_LENGTH)
        connection.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in SQL_ALLOWED else sqlite3.SQLITE_DENY
        )
        return connection

    def problem(self, name: str, arguments: dict[str, Any]) -> str:
        """What is wrong with a call by the listed schemas, or nothing."""
        if name not in self.tools:
            return f"no tool {name}"
        tool = self.tools[name]
        for role, argument in tool.arguments.items():
            if argument not in arguments:
                return f"{argument} is missing"
            value = arguments[argument]
            if not isinstance(value, PYTHON_TYPES[tool.types[role]]) or isinstance(value, bool):
                return f"{argument} must be a {tool.types[role]}"
        unknown = [argument for argument in arguments if argument not in tool.arguments.values()]
        return f"no argument {unknown[0]}" if unknown else ""

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """The tool's result as text; `Error: ...` when the call cannot be carried out."""
        self.num_calls += 1
        if self.num_calls - 1 in self.busy:
            return BUSY
        if problem := self.problem(name, arguments):
            return f"Error: {problem}"
        tool = self.tools[name]
        values = {role: arguments[argument] for role, argument in tool.arguments.items()}
        try:
            return self._run(tool.meaning, values)
        except ToolError as error:
            return f"Error: {error}"

    def _run(self, meaning: str, values: dict[str, Any]) -> str:
        if meaning == "search":
            return "\n".join(passage.text for passage in search(self.passages, values["query"])) or NO_RESULTS
        if meaning == "sql":
            return self._select(values["statement"])
        if meaning == "calculate":
            return calculate(values["expression"])
        if meaning == "convert":
            return convert(values["value"], values["from"], values["to"])
        raise ToolError("this tool is out of order")

    def _select(self, statement: str) -> str:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1000
            return int(steps > MAX_SQL_STEPS)

        self.database.set_progress_handler(count, 1000)
        try:
            cursor = self.database.execute(statement)
            rows = cursor.fetchmany(MAX_ROWS)
            cursor.close()
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise ToolError("the query takes too long" if steps > MAX_SQL_STEPS else str(error)) from None
        names = [column[0] for column in cursor.description or ()]
        lines = [", ".join(f"{name}: {value}" for name, value in zip(names, row, strict=True)) for row in rows]
        return "\n".join(lines)[:MAX_TEXT] or NO_ROWS
