"""Draws the entities of the imaginary country and what is true of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from data.world.names import new_name
from data.world.schema import KINDS, RELATIONS, Relation

#: A person founds and designs nothing before this age, nor long after it.
WORKING_AGE = (20, 35)


@dataclass(frozen=True, slots=True)
class Entity:
    """Somebody or something, and a value for every relation of its kind; an entity is named by its name."""

    kind: str
    name: str
    facts: dict[str, int | str]


@dataclass(frozen=True, slots=True)
class World:
    """The entities of one world by name; each entity that a fact names is one of them."""

    entities: dict[str, Entity]

    def by_kind(self, kind: str) -> list[Entity]:
        """The entities of a kind, in the order in which they were drawn."""
        return [entity for entity in self.entities.values() if entity.kind == kind]


def draw_world(rng: Random, counts: Mapping[str, int], held_out: bool) -> World:
    """Draw a world with that many entities of each kind, all names of one split.

    Kinds that are not counted but referred to get two entities, so that no fact leads nowhere. References go round: an
    entity is named again only when each of its kind has been, so that nobody governs a second town while others have
    none.
    """
    needed = {kind: count for kind, count in counts.items() if count}
    queue = list(needed)
    while queue:
        for relation in RELATIONS[queue.pop()].values():
            if relation.is_entity and relation.type not in needed:
                needed[relation.type] = 2
                queue.append(relation.type)
    names: dict[str, list[str]] = {}
    for kind in (kind for kind in KINDS if kind in needed):
        drawn: dict[str, None] = {}
        while len(drawn) < needed[kind]:
            drawn[new_name(rng, kind, held_out)] = None
        names[kind] = list(drawn)
    decks: dict[str, list[str]] = {kind: [] for kind in names}

    def refer(kind: str) -> str:
        if not decks[kind]:
            decks[kind] = rng.sample(names[kind], len(names[kind]))
        return decks[kind].pop()

    entities: dict[str, Entity] = {}
    for kind, of_kind in names.items():  # people come first: when a founder was born is known
        for name in of_kind:
            facts = draw_facts(rng, kind, refer, held_out)
            for relation in RELATIONS[kind].values():
                if relation.after:
                    born = int(entities[str(facts[relation.after])].facts["birth_year"])
                    facts[relation.name] = born + rng.randint(*WORKING_AGE)
            entities[name] = Entity(kind, name, facts)
    return World(entities)


def draw_entity(rng: Random, kind: str, name: str, held_out: bool) -> Entity:
    """An entity that stands alone: the others that its facts name are drawn for it and have no facts."""
    return Entity(kind, name, draw_facts(rng, kind, lambda other: new_name(rng, other, held_out), held_out))


def draw_facts(rng: Random, kind: str, refer: Callable[[str], str], held_out: bool) -> dict[str, int | str]:
    """A value for each relation of a kind; `refer` names an entity of a kind."""
    return {name: draw_value(rng, relation, refer, held_out) for name, relation in RELATIONS[kind].items()}


def draw_value(rng: Random, relation: Relation, refer: Callable[[str], str], held_out: bool) -> int | str:
    """A value of a relation; counts are spread evenly over their magnitudes, so that short ones are as common."""
    if relation.type == "count":
        return min(relation.high, int(relation.low * (relation.high / relation.low + 1) ** rng.random()))
    if relation.type == "year":
        return rng.randint(relation.low, relation.high)
    if relation.type == "word":
        return rng.choice(relation.words)
    return new_name(rng, "river", held_out) if relation.type == "river" else refer(relation.type)
