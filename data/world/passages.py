"""Tells about an entity: a passage of a few facts, or an article with all of them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from data.world.facts import Entity, World
from data.world.phrases import PHRASES, clause, fill, later_subjects, pick, sentence, statement, with_aside
from data.world.schema import RELATIONS

#: How often a passage starts with a sentence that says nothing asked for, and how often another stands in it.
INTRO_SHARE = 0.3
FILLER_SHARE = 0.3
#: How often two neighbouring facts share a sentence, and how often it is an aside that joins them.
JOIN_SHARE = 0.35
ASIDE_SHARE = 0.5


def passage(rng: Random, entity: Entity, relations: Sequence[str], held_out: bool) -> str:
    """Those facts of the entity, in that order, in plain words; the first sentence has its name."""
    phrases = PHRASES[entity.kind]
    sentences: list[str] = []
    subject = entity.name
    later = later_subjects(entity)
    if rng.random() < INTRO_SHARE:
        sentences.append(sentence(fill(pick(rng, phrases, "intros", held_out), subject)))
        subject = rng.choice(later)
    told = [RELATIONS[entity.kind][name] for name in relations]
    while told:
        relation = told.pop(0)
        if told and rng.random() < JOIN_SHARE:
            other = told.pop(0)
            if rng.random() < ASIDE_SHARE:
                sentences.append(sentence(with_aside(rng, relation, other, entity, held_out)))
            else:
                first = clause(rng, relation, entity, subject, held_out)
                sentences.append(sentence(f"{first}, and {clause(rng, other, entity, later[0], held_out)}"))
        else:
            sentences.append(statement(rng, relation, entity, subject, held_out))
        subject = rng.choice((*later, later[0], entity.name))
    if rng.random() < FILLER_SHARE:
        filler = fill(pick(rng, phrases, "fillers", held_out), rng.choice(later))
        sentences.insert(rng.randint(1, len(sentences)), sentence(filler))
    return " ".join(sentences)


def article(rng: Random, world: World, entity: Entity, held_out: bool = False) -> str:
    """A title line and two or three paragraphs: every fact of the entity, and a fact of some that it names."""
    relations = list(RELATIONS[entity.kind])
    rng.shuffle(relations)
    middle = rng.randint(2, len(relations) - 2)
    paragraphs = [passage(rng, entity, part, held_out) for part in (relations[:middle], relations[middle:])]
    linked = [name for relation in relations if (name := str(entity.facts[relation])) in world.entities]
    if linked:
        other = world.entities[rng.choice(linked)]
        paragraphs.append(passage(rng, other, [rng.choice(list(RELATIONS[other.kind]))], held_out))
    return "\n\n".join([entity.name, *paragraphs])
