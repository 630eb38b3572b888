"""The set written by hand: each item can be answered, and no template of the course could have written it."""

from __future__ import annotations

import random
import re
from itertools import chain

import pytest

from data.evaluation import by_hand
from data.evaluation.by_hand import READING, TOOLS
from data.tasks.tool_arithmetic import UNITS
from data.tasks.tool_calls import ToolCall
from data.tasks.tool_goals import SAY
from data.tasks.tool_pool import POOL
from data.tasks.toolbox import NO_RESULTS
from data.world.facts import World
from data.world.passages import passage
from data.world.phrases import OPENERS, PHRASES, question
from data.world.schema import RELATIONS, Relation

NAME = r"[A-Z][a-z]+(?: [A-Za-z]+)?"


def value_pattern(relation: Relation) -> str:
    if relation.is_number:
        return rf"\d+(?: {relation.unit})?" if relation.unit else r"\d+"
    return "|".join(relation.words) or NAME


def pattern_of(template: str, **holes: str) -> re.Pattern[str]:
    """A template as a pattern: each hole takes what it is given here, else anything; the full stop may be missing."""
    pieces = re.split(r"\{(\w+)\}", template)  # text and holes in turn
    pieces[::2] = map(re.escape, pieces[::2])
    pieces[1::2] = [f"(?:{holes.get(hole, '.+')})" for hole in pieces[1::2]]
    return re.compile(f"{''.join(pieces)}[.?!]?", re.IGNORECASE)


def both(table: dict[str, list[str]], name: str) -> list[str]:
    return [*table.get(name, ()), *table.get(f"held_out_{name}", ())]


def statements() -> list[re.Pattern[str]]:
    """Everything that a passage says."""
    made = []
    for kind, phrases in PHRASES.items():
        made += [pattern_of(text) for name in ("intros", "fillers") for text in both(phrases, name)]
        for name, relation in RELATIONS[kind].items():
            value = value_pattern(relation)
            made += [pattern_of(text, v=value, a="an?") for text in both(phrases[name], "statements")]
    return made


def questions() -> list[re.Pattern[str]]:
    """Everything that a user asks of passages or of tools."""
    unit = "|".join(UNITS)
    holes = {
        "unit": unit,
        "from": unit,
        "to": unit,
        "value": r"\d+",
        "sum": r"(?:[\d ()+*/-]|plus|minus|times|divided by)+",
    }
    phrases = [PHRASES[kind][name] for kind in RELATIONS for name in RELATIONS[kind]]
    made = [pattern_of(text) for table in phrases for text in both(table, "questions")]
    for name, texts in chain(POOL["ask"].items(), POOL["ask"]["held_out"].items()):
        if name != "held_out":
            made += [pattern_of(text, first="the .+", second="the .+", **holes) for text in texts]
    return made


def made_by(text: str, patterns: list[re.Pattern[str]], openers: list[str]) -> list[str]:
    """The templates that could have written a sentence, or a part of it, with or without an opener before it."""
    for opener in openers:
        before = opener.split("{")[0]
        if text.lower().startswith(before.lower()):
            text = text[len(before) :]
    parts = [text, *text.split(", and "), *text.split("; ")]
    return [pattern.pattern for pattern in patterns for part in parts if pattern.fullmatch(part)]


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) ", text)


def test_the_patterns_know_what_the_templates_write() -> None:
    """Otherwise the test below would find nothing."""
    rng = random.Random(0)
    world = by_hand.TOOLS[0].scene.world
    known, asked = statements(), questions()
    for entity in world.entities.values():
        for held_out in (False, True):
            for name, relation in RELATIONS[entity.kind].items():
                text = question(rng, relation, entity.name, held_out)
                assert made_by(text, asked, both(OPENERS, "asking")), text
                told = sentences(passage(rng, entity, [name], held_out))
                assert all(made_by(text, known, both(OPENERS, "openers")) for text in told), told


def test_no_template_writes_the_passages() -> None:
    known, openers = statements(), both(OPENERS, "openers")
    texts = [*chain.from_iterable(item.passages for item in READING), *(page.text for page in TOOLS[0].scene.passages)]
    told = chain.from_iterable(map(sentences, texts))
    found = {text: templates for text in told if (templates := made_by(text, known, openers))}
    assert not found


def test_no_template_asks_the_questions() -> None:
    known, openers = questions(), both(OPENERS, "asking")
    asked = [item.question for item in (*READING, *TOOLS)]
    found = {text: templates for text in asked if (templates := made_by(text, known, openers))}
    assert not found


def test_the_tools_have_names_of_their_own() -> None:
    entries = [*POOL["meaning"].values(), *(entry["held_out"] for entry in POOL["meaning"].values())]
    known = {name for entry in entries for name in entry["names"]} | {entry["name"] for entry in POOL["other"]}
    words = {text for entry in entries for text in entry["descriptions"]} | {e["description"] for e in POOL["other"]}
    for item in TOOLS:
        for tool in item.scene.tools:
            assert tool.name not in known
            assert tool.description not in words


def test_there_are_enough_and_none_twice() -> None:
    asked = [item.question for item in (*READING, *TOOLS)]
    assert len(READING) >= 40
    assert len(TOOLS) >= 20
    assert len(set(asked)) == len(asked) >= 60
    texts = [text for item in READING for text in item.passages]
    assert len(set(texts)) == len(texts)
    assert sum(item.value is None for item in READING) >= 8
    assert all(2 <= len(item.passages) <= 5 for item in READING)


def test_the_value_stands_in_the_cited_passage_alone() -> None:
    for item in READING:
        if item.value is None:
            assert item.label == 0
            continue
        holders = [label for label, text in enumerate(item.passages, 1) if re.search(rf"\b{item.value}\b", text)]
        assert holders == [item.label], item.question
        assert item.value not in item.question


@pytest.mark.parametrize("place", range(len(TOOLS)))
def test_the_listed_tools_lead_to_the_value(place: int) -> None:
    """By the calls that are noted with the item, with live tools."""
    item, row = TOOLS[place], by_hand.ROWS[place]
    dialogue = item.dialogue()
    for call in row["solution"]:
        tool = by_hand.tool_of(call["tool"], ())
        assert tool.name in {listed.name for listed in item.scene.tools}
        dialogue.act("", [ToolCall(tool.name, dict(zip(tool.arguments.values(), call["arguments"], strict=True)))])
    assert dialogue.num_valid == dialogue.num_calls == len(row["solution"])
    last = dialogue.messages[-1]["content"]
    if not row["solution"]:
        assert item.value in SAY["impossible"]
    elif item.value in SAY["not_found"]:
        assert last == NO_RESULTS
    else:
        assert re.search(rf"(?<![\w.]){re.escape(item.value)}(?![\w.]\d)", last)
    assert item.value not in item.question


def test_facts_name_who_is_there() -> None:
    world: World = TOOLS[0].scene.world
    for entity in world.entities.values():
        assert set(entity.facts) == set(RELATIONS[entity.kind])
        for name, relation in RELATIONS[entity.kind].items():
            if relation.is_entity:
                assert world.entities[str(entity.facts[name])].kind == relation.type
