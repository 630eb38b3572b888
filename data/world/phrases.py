"""Words for facts: how each relation is stated, asked, named and answered, from `phrases/*.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from data.world.facts import Entity
from data.world.names import pronoun
from data.world.schema import KINDS, Relation

#: One statement in this many starts with an opener such as "According to the records", and one question in as many with
#: one such as "Please tell me:".
OPENER_ONE_IN = 6


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "phrases" / f"{name}.toml").read_text(encoding="utf-8"))


#: Kind -> its introductions and fillers, and a table for each relation.
PHRASES: dict[str, dict[str, Any]] = {kind: _read(kind) for kind in KINDS}
OPENERS: dict[str, list[str]] = _read("openers")


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject in its three forms: `she`, `her`, `her`."""

    nominative: str
    objective: str
    possessive: str


_PRONOUNS = {
    "she": Subject("she", "her", "her"),
    "he": Subject("he", "him", "his"),
    "it": Subject("it", "it", "its"),
}


def forms(subject: str) -> Subject:
    """The forms of a name, a noun phrase or a pronoun."""
    return _PRONOUNS.get(subject) or Subject(subject, subject, subject + ("'" if subject[-1] == "s" else "'s"))


def later_subjects(entity: Entity) -> tuple[str, ...]:
    """What stands for an entity after its name has been said: `it` or `the town`, `she` for a person."""
    if entity.kind == "person":
        return (pronoun(entity.name),)
    return ("it", f"the {entity.kind}")


def pick(rng: Random, table: dict[str, Any], name: str, held_out: bool) -> str:
    """One of the training phrases of that name, or of the held-out ones."""
    phrases: list[str] = table[f"held_out_{name}" if held_out else name]
    return rng.choice(phrases)


def fill(template: str, subject: str, value: str = "") -> str:
    """A template with its subject and its value, and `a` or `an` as the value's first letter asks."""
    its = forms(subject)
    article = "an" if value[:1] in "aeiou" and value else "a"
    return template.format(s=its.nominative, o=its.objective, p=its.possessive, v=value, a=article)


def sentence(text: str) -> str:
    """The text with a capital first letter, and a full stop if it ends in a letter or a digit."""
    return text[0].upper() + text[1:] + ("." if text[-1].isalnum() else "")


def clause(rng: Random, relation: Relation, entity: Entity, subject: str, held_out: bool) -> str:
    """A statement of the fact without capital letter and full stop: `the town has 4210 inhabitants`."""
    template = pick(rng, PHRASES[relation.kind][relation.name], "statements", held_out)
    return fill(template, subject, relation.written(entity.facts[relation.name]))


def with_aside(rng: Random, relation: Relation, other: Relation, entity: Entity, held_out: bool) -> str:
    """Two facts as one clause, the first between commas: `Velmora, a town of 4210 inhabitants, lies on the Lind`.

    The second is one of the statements that start with their subject; every relation has such a one.
    """
    between = fill(
        pick(rng, PHRASES[relation.kind][relation.name], "asides", held_out),
        entity.name,
        relation.written(entity.facts[relation.name]),
    )
    while not (template := pick(rng, PHRASES[other.kind][other.name], "statements", held_out)).startswith("{s} "):
        pass
    return fill(template, f"{entity.name}, {between},", other.written(entity.facts[other.name]))


def statement(rng: Random, relation: Relation, entity: Entity, subject: str, held_out: bool) -> str:
    """A sentence that states the fact: `According to the records, Velmora has 4210 inhabitants.`"""
    told = clause(rng, relation, entity, subject, held_out)
    if rng.randrange(OPENER_ONE_IN) == 0:
        told = pick(rng, OPENERS, "openers", held_out).format(statement=told)
    return sentence(told)


def question(rng: Random, relation: Relation, subject: str, held_out: bool) -> str:
    """A question for the value; `subject` is a name or a noun phrase."""
    asked = fill(pick(rng, PHRASES[relation.kind][relation.name], "questions", held_out), subject)
    if rng.randrange(OPENER_ONE_IN) == 0:
        keeps_capital = asked.startswith((subject, "I "))
        asked = asked if keeps_capital else asked[0].lower() + asked[1:]
        asked = pick(rng, OPENERS, "asking", held_out).format(question=asked)
    return sentence(asked)


def noun_phrase(rng: Random, relation: Relation, name: str, held_out: bool) -> str:
    """The value of an entity-valued relation in words: `the town where Mira Tolvan was born`."""
    return fill(pick(rng, PHRASES[relation.kind][relation.name], "noun_phrases", held_out), name)


def answer(relation: Relation, name: str, value: int | str) -> str:
    """What was asked, and its value: `The population of Velmora is 4210.`"""
    return sentence(f"{relation.key.format(name=name)} is {relation.written(value)}")


def no_answer(relation: Relation, name: str) -> str:
    """What was asked, and that it is not known: `The population of Velmora is not given.`"""
    return sentence(f"{relation.key.format(name=name)} is not given")
