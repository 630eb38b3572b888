"""The tools that a prompt lists: four meanings under many names, and others that no task needs."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from data.tasks.phrasing import COMPOSED_SHARE, compose, grammars
from data.world.names import is_held_out, letters, syllables
from data.world.phrases import PHRASES
from data.world.schema import RELATIONS, WORDS

POOL: dict[str, Any] = tomllib.loads((Path(__file__).parent / "tools.toml").read_text(encoding="utf-8"))
#: Phrases of which descriptions, requests and tools that no task needs are put together in training.
DESCRIPTIONS, REQUESTS, OTHERS = grammars("tool_descriptions"), grammars("tool_phrases"), grammars("tool_others")
MEANINGS = tuple(POOL["meaning"])
NUMBERS = ("value",)
#: Share of names in training that are made up. With lists alone a model learns the lists and not to read the prompt.
OPEN_SHARE = 0.7
#: Words of the JSON around every name: to a model that never sees one copied they are no part of a name.
JSON_WORDS = (
    "string", "number", "type", "name", "object", "function", "arguments", "parameters", "required", "properties",
    "description", "call", "tool", "response", "select", "where", "from",
)  # fmt: skip


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


def held_out_names() -> set[str]:
    """What tools and arguments are called in evaluation only."""
    found = {entry["name"] for entry in POOL["other"] if entry.get("held_out")}
    found |= {argument for entry in POOL["other"] if entry.get("held_out") for argument in entry["arguments"]}
    for entry in POOL["meaning"].values():
        found.update(entry["held_out"]["names"], *entry["held_out"]["arguments"].values())
    return found


def vocabulary() -> tuple[str, ...]:
    """The words of all training phrases, in a fixed order."""
    texts = [POOL["ask"][sort] for sort in POOL["ask"] if sort != "held_out"]
    texts += [entry["descriptions"] for entry in POOL["meaning"].values()]
    for grammar in chain(DESCRIPTIONS.values(), REQUESTS.values(), OTHERS.values()):
        texts += [grammar["templates"], *grammar["slots"].values()]
    for phrases in PHRASES.values():
        for name, table in phrases.items():
            lists = table if isinstance(table, dict) else {name: table}
            texts += [lists[key] for key in lists if not key.startswith("held_out_")]
    return tuple(sorted({word for phrase in chain(*texts) for word in re.findall(r"[a-z]{3,10}", phrase)}))


HELD_OUT_NAMES, VOCABULARY = held_out_names(), vocabulary()
HELD_OUT_OTHERS = {entry["description"] for entry in POOL["other"] if entry.get("held_out")}


def open_name(rng: random.Random, taken: Collection[str]) -> str:
    """A made-up name of one to three parts, not in `taken` and not held out: `fast_archive`."""
    while True:
        name = rng.choice("___-").join(open_part(rng) for _ in range(rng.choice((1, 1, 2, 2, 2, 3))))
        if name not in taken and name not in HELD_OUT_NAMES and not is_held_out(name):
            return name


def open_part(rng: random.Random) -> str:
    """A part of a made-up name: a word, a piece of one, syllables or letters.

    Of every sort, as a model copies only what it has seen copied: with few words it wrote `query_type` for
    `query_string`.
    """
    kind = rng.randrange(9)
    if kind < 2:
        return str(rng.choice(POOL["words"]))
    if kind < 4:
        return rng.choice(VOCABULARY)
    if kind == 4:
        return rng.choice((rng.choice(JSON_WORDS), rng.choice(WORDS).lower().replace(" ", "_")))
    if kind < 7:
        word = rng.choice(VOCABULARY)
        start = rng.randrange(len(word) - 1)
        return word[start : start + rng.randint(2, 6)]
    return letters(rng) if kind == 7 else syllables(rng, 1, 3).lower()


def draw_name(rng: random.Random, names: Sequence[str], taken: Collection[str], held_out: bool) -> str:
    """One of the names that is not in `taken`; in training mostly a made-up one, and never one that is held out."""
    if not held_out and rng.random() < OPEN_SHARE:
        return open_name(rng, taken)
    free = [name for name in names if name not in taken and (held_out or name not in HELD_OUT_NAMES)]
    return rng.choice(free) if free else open_name(rng, taken)


def draw_tool(rng: random.Random, meaning: str, kinds: Sequence[str], held_out: bool, taken: set[str]) -> Tool:
    """A tool of this meaning under a name not in `taken`; `held_out` draws only from names that training never sees."""
    entry = POOL["meaning"][meaning]
    source = entry["held_out"] if held_out else entry
    name = draw_name(rng, source["names"], taken, held_out)
    arguments: dict[str, str] = {}
    for role in entry["arguments"]:
        arguments[role] = draw_name(rng, source["arguments"][role], arguments.values(), held_out)
    description = draw_description(rng, meaning, held_out).replace("{tables}", tables(kinds))
    types = {role: "number" if role in NUMBERS else "string" for role in arguments}
    return Tool(meaning, name, description, arguments, types)


def draw_description(rng: random.Random, meaning: str, held_out: bool) -> str:
    """A sentence of the lists; in training most are put together from phrases, which give no held-out one."""
    entry = POOL["meaning"][meaning]
    if not held_out and rng.random() < COMPOSED_SHARE:
        return compose(rng, DESCRIPTIONS[meaning], entry["held_out"]["descriptions"])
    return str(rng.choice((entry["held_out"] if held_out else entry)["descriptions"]))


def draw_others(rng: random.Random, count: int, held_out: bool, taken: set[str]) -> list[Tool]:
    """`count` tools that no task needs, under names not in `taken`."""
    entries = [entry for entry in POOL["other"] if entry.get("held_out", False) == held_out]
    tools: list[Tool] = []
    for entry in rng.sample(entries, count):
        if not held_out and rng.random() < COMPOSED_SHARE:
            entry = compose_other(rng)
        name = draw_name(rng, [entry["name"]], taken, held_out)
        taken.add(name)
        arguments: dict[str, str] = {}
        for role in entry["arguments"]:
            arguments[role] = draw_name(rng, [role], arguments.values(), held_out)
        tools.append(Tool("other", name, entry["description"], arguments, entry["arguments"]))
    return tools


def compose_other(rng: random.Random) -> dict[str, Any]:
    """A tool that no task needs, put together from phrases: an entry as the list has it."""
    grammar = rng.choice(list(OTHERS.values()))
    roles = rng.sample(list(grammar["arguments"]), rng.choice((1, 1, 2, 2, 3)))
    return {
        "name": f"{rng.choice(grammar['verbs'])}_{rng.choice(grammar['nouns'])}",
        "description": compose(rng, grammar, HELD_OUT_OTHERS),
        "arguments": {role: grammar["arguments"][role] for role in roles},
    }


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
