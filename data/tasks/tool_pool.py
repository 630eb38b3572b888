"""The tools that a prompt lists: four meanings under many names, and others that no task needs."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data.world.names import is_held_out, letters, syllables
from data.world.schema import RELATIONS, WORDS

POOL: dict[str, Any] = tomllib.loads((Path(__file__).parent / "tools.toml").read_text(encoding="utf-8"))
MEANINGS = tuple(POOL["meaning"])
NUMBERS = ("value",)
#: Share of names in training that are made up. With lists alone a model learns the lists and not to read the prompt.
OPEN_SHARE = 0.5


@dataclass(frozen=True)
class Tool:
    """One tool as one prompt names it.

    Attributes:
        meaning: "search", "sql", "calculate", "convert", or "other".
        name: what the prompt calls it.
        description: one line for the model.
        arguments: role ("query", "from") -> the name that the prompt gives it.
        types: role -> JSON type, "string" or "number".
    """

    meaning: str
    name: str
    description: str
    arguments: dict[str, str]
    types: dict[str, str]

    @cached_property
    def definition(self) -> dict[str, Any]:
        """The function definition (JSON schema) of the `tools` of a chat template."""
        properties = {self.arguments[role]: {"type": self.types[role]} for role in self.arguments}
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}

    def bind(self, **values: Any) -> dict[str, Any]:
        """Arguments given by role, as this prompt names them."""
        return {self.arguments[role]: value for role, value in values.items()}


def tables(kinds: Sequence[str]) -> str:
    """The SQL tables of these kinds with their columns, as an SQL tool's description lists them."""
    return ", ".join(f"{kind}(name, {', '.join(RELATIONS[kind])})" for kind in kinds)


def open_name(rng: random.Random, taken: Collection[str]) -> str:
    """A made-up name of one or two words, syllables or letters, not in `taken` and not held out: `fast_archive`."""
    while True:
        name = "_".join(open_part(rng) for _ in range(rng.choice((1, 2, 2))))
        if name not in taken and not is_held_out(name):
            return name


def open_part(rng: random.Random) -> str:
    """A part of a made-up name."""
    kind = rng.randrange(6)
    if kind < 2:
        return str(rng.choice(POOL["words"]))
    if kind == 2:
        return rng.choice(WORDS).lower().replace(" ", "_")
    return letters(rng) if kind == 3 else syllables(rng, 1, 3).lower()


def draw_name(rng: random.Random, names: Sequence[str], taken: Collection[str], held_out: bool) -> str:
    """One of the names that is not in `taken`; in training, half of the time a made-up one."""
    if not held_out and rng.random() < OPEN_SHARE:
        return open_name(rng, taken)
    free = [name for name in names if name not in taken]
    return rng.choice(free) if free else open_name(rng, taken)


def draw_tool(rng: random.Random, meaning: str, kinds: Sequence[str], held_out: bool, taken: set[str]) -> Tool:
    """A tool of this meaning under a name not in `taken`; `held_out` draws only from names that training never sees."""
    entry = POOL["meaning"][meaning]
    source = entry["held_out"] if held_out else entry
    name = draw_name(rng, source["names"], taken, held_out)
    arguments: dict[str, str] = {}
    for role in entry["arguments"]:
        arguments[role] = draw_name(rng, source["arguments"][role], arguments.values(), held_out)
    description = rng.choice(source["descriptions"]).replace("{tables}", tables(kinds))
    types = {role: "number" if role in NUMBERS else "string" for role in arguments}
    return Tool(meaning, name, description, arguments, types)


def draw_others(rng: random.Random, count: int, held_out: bool, taken: set[str]) -> list[Tool]:
    """`count` tools that no task needs, under names not in `taken`."""
    entries = [entry for entry in POOL["other"] if entry.get("held_out", False) == held_out]
    tools: list[Tool] = []
    for entry in rng.sample(entries, count):
        name = draw_name(rng, [entry["name"]], taken, held_out)
        taken.add(name)
        arguments: dict[str, str] = {}
        for role in entry["arguments"]:
            arguments[role] = draw_name(rng, [role], arguments.values(), held_out)
        tools.append(Tool("other", name, entry["description"], arguments, entry["arguments"]))
    return tools


def draw_tools(
    rng: random.Random, meanings: Sequence[str], others: int, kinds: Sequence[str], held_out: bool = False
) -> list[Tool]:
    """A prompt's tools in random order: one of each meaning, and `others` more; `kinds` are the tables of SQL."""
    taken: set[str] = set()
    tools: list[Tool] = []
    for meaning in meanings:
        tools.append(draw_tool(rng, meaning, kinds, held_out, taken))
        taken.add(tools[-1].name)
    tools += draw_others(rng, others, held_out, taken)
    rng.shuffle(tools)
    return tools
