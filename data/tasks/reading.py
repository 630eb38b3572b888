"""Questions over labelled passages: the answer restates what was asked and cites its passage, or says it is missing.

A prompt is the passages, a line each with the label after the sentences, then an empty line and the question:

    Velmora is a town on the Lind. Some 4210 people live there. [1]
    Mira Tolvan works as a baker. [2]

    What is the population of Velmora?

The answer is `The population of Velmora is 4210 [1].`, or `The population of Velmora is not given.`
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from data.tasks.ranking import rank
from data.tasks.sample import Conversation
from data.world.facts import Entity, draw_entity, draw_value
from data.world.names import new_name, similar_name
from data.world.passages import passage
from data.world.phrases import answer, no_answer, question
from data.world.schema import KINDS, RELATIONS, Relation

MAX_PASSAGES, MAX_FACTS = 8, 4
#: Share of questions that no passage answers, and share of contexts that the retriever chose.
UNANSWERABLE_SHARE = 0.2
RETRIEVED_SHARE = 0.5
#: What being named as a mayor, founder or architect hints at; it is not asked of who is only mentioned.
HINTED = ("job", "employer")
#: How likely each number of passages is, from 1, as far as the level lets it come up.
PASSAGE_WEIGHTS = (2, 3, 4, 5, 3, 2, 1, 1)


@dataclass(frozen=True, slots=True)
class Told:
    """A passage, whom it is about, and the relations that it states."""

    text: str
    entity: Entity
    relations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReadingTask:
    """One question over passages, and what is expected.

    Attributes:
        passages: what the prompt shows, unlabelled; the first gets label 1.
        relation: what is asked for.
        name: the entity that is asked about.
        question: the question in words.
        value: the right value, or None where no passage gives it.
        label: the label of the passage that gives it, or 0.
    """

    passages: tuple[str, ...]
    relation: Relation
    name: str
    question: str
    value: int | str | None
    label: int

    @property
    def answer(self) -> str:
        """The expected answer, word for word."""
        if self.value is None:
            return no_answer(self.relation, self.name)
        return f"{answer(self.relation, self.name, self.value)[:-1]} [{self.label}]."

    def swapped(self, rng: Random, held_out: bool = False) -> ReadingTask:
        """The same task with another value in the passage: who reads answers with the new one.

        Raises:
            ValueError: no passage answers the question.
        """
        if self.value is None:
            raise ValueError("nothing to swap: no passage answers this question")
        value = self.value
        while value == self.value:
            value = draw_value(rng, self.relation, lambda kind: new_name(rng, kind, held_out), held_out)
        passages = list(self.passages)
        old, new = re.escape(str(self.value)), str(value)
        flags = re.IGNORECASE if str(self.value).islower() else re.NOFLAG  # a word may start a sentence; May is not may
        text = re.sub(rf"\b{old}\b", new, passages[self.label - 1], flags=flags)
        text = re.sub(rf"\ban? {re.escape(new)}\b", f"{'an' if new[0] in 'aeiou' else 'a'} {new}", text)
        passages[self.label - 1] = text[0].upper() + text[1:]
        return replace(self, passages=tuple(passages), value=value)


def prompt(task: ReadingTask, with_passages: bool = True) -> str:
    """What the user says: the labelled passages and the question, or the question alone."""
    return f"{labelled(task.passages)}\n\n{task.question}" if with_passages else task.question


def labelled(passages: Sequence[str]) -> str:
    """A line for each passage, with its label at the end."""
    return "\n".join(f"{text} [{label}]" for label, text in enumerate(passages, 1))


def draw_told(
    rng: Random, count: int, max_facts: int = MAX_FACTS, held_out_names: bool = False, held_out_phrases: bool = False
) -> list[Told]:
    """Passages that are easy to mix up, no fact of an entity in two of them.

    A new one is about the entity of an earlier one with other facts, about one of the same kind with the same facts,
    often of a similar name, or about anything else.
    """
    told: list[Told] = []
    while len(told) < count:
        num_facts = rng.randint(1, max_facts)
        choice = rng.random() if told else 1.0
        seed = rng.choice(told) if told else None
        if seed and choice < 0.25:
            entity = seed.entity
            used = {name for other in told if other.entity is entity for name in other.relations}
            free = [name for name in RELATIONS[entity.kind] if name not in used]
            relations = rng.sample(free, min(num_facts, len(free)))
        elif seed and choice < 0.7:
            kind, known = seed.entity.kind, seed.entity.name
            name = similar_name(rng, kind, known) if rng.random() < 0.5 else new_name(rng, kind, held_out_names)
            entity = draw_entity(rng, kind, name, held_out_names)
            relations = list(seed.relations)[:max_facts]
            rng.shuffle(relations)
        else:
            kind = rng.choice(KINDS)
            entity = draw_entity(rng, kind, new_name(rng, kind, held_out_names), held_out_names)
            relations = rng.sample(list(RELATIONS[kind]), num_facts)
        if relations and all(other.entity is entity or other.entity.name != entity.name for other in told):
            told.append(Told(passage(rng, entity, relations, held_out_phrases), entity, tuple(relations)))
    rng.shuffle(told)
    return told


def ask(
    rng: Random, told: Sequence[Told], answerable: bool, held_out_names: bool = False, held_out_phrases: bool = False
) -> ReadingTask:
    """A question over the passages that one of them answers, or that none does."""
    label = rng.randrange(len(told)) + 1
    seed, value = told[label - 1], None
    if answerable:
        relation, name = RELATIONS[seed.entity.kind][rng.choice(seed.relations)], seed.entity.name
        value = seed.entity.facts[relation.name]
    else:
        label = 0
        relation, name = _not_told(rng, told, seed, held_out_names)
    asked = question(rng, relation, name, held_out_phrases)
    return ReadingTask(tuple(other.text for other in told), relation, name, asked, value, label)


def _not_told(rng: Random, told: Sequence[Told], seed: Told, held_out_names: bool) -> tuple[Relation, str]:
    """What no passage tells: something else of an entity that is there, or a fact of one that is not.

    The latter has a name like one that is there, any name, or one that is only mentioned as a value.
    """
    entity = seed.entity
    known = {name for other in told if other.entity is entity for name in other.relations}
    missing = [relation for name, relation in RELATIONS[entity.kind].items() if name not in known]
    if missing and rng.random() < 0.5:
        return rng.choice(missing), entity.name
    names = {other.entity.name for other in told}
    mentioned = [RELATIONS[entity.kind][name] for name in seed.relations if RELATIONS[entity.kind][name].is_entity]
    if mentioned and rng.random() < 0.3:
        link = rng.choice(mentioned)
        name = str(entity.facts[link.name])
        free = [relation for name, relation in RELATIONS[link.type].items() if name not in HINTED]
        if name not in names:
            return rng.choice(free), name
    name = entity.name
    while name in names:
        similar = rng.random() < 0.5
        name = similar_name(rng, entity.kind, name) if similar else new_name(rng, entity.kind, held_out_names)
    return RELATIONS[entity.kind][rng.choice(seed.relations)], name


def retrieve(
    rng: Random,
    count: int,
    answerable: bool,
    max_facts: int = MAX_FACTS,
    held_out_names: bool = False,
    held_out_phrases: bool = False,
) -> tuple[list[Told], ReadingTask]:
    """A question, and the passages that BM25 finds for it in a larger pool: in its order, and with its misses.

    Where the passage that answers is not among those found, the right reply is that the answer is not given.
    """
    pool = draw_told(rng, count + rng.randint(2, 6), max_facts, held_out_names, held_out_phrases)
    task = ask(rng, pool, answerable, held_out_names, held_out_phrases)
    order = rank(task.question, task.passages)[:count]
    found = task.label - 1 in order
    task = replace(
        task,
        passages=tuple(task.passages[index] for index in order),
        value=task.value if found else None,
        label=order.index(task.label - 1) + 1 if found else 0,
    )
    return [pool[index] for index in order], task


def draw_reading(
    rng: Random,
    *,
    num_passages: int = 4,
    held_out_names: bool = False,
    held_out_phrases: bool = False,
    answerable: bool | None = None,
    from_retriever: bool = False,
) -> ReadingTask:
    """A task with that many passages; `answerable=None` draws it with the share of training.

    From the retriever, a question that is answerable in its pool may still have lost its passage: `task.value` tells.
    """
    if answerable is None:
        answerable = rng.random() >= UNANSWERABLE_SHARE
    if from_retriever:
        return retrieve(rng, num_passages, answerable, MAX_FACTS, held_out_names, held_out_phrases)[1]
    told = draw_told(rng, num_passages, MAX_FACTS, held_out_names, held_out_phrases)
    return ask(rng, told, answerable, held_out_names, held_out_phrases)


def reading(
    rng: Random,
    held_out: bool = False,
    num_passages: int | None = None,
    num_questions: int | None = None,
    level: float = 1.0,
) -> Conversation:
    """A conversation of several questions over the same passages; half of the contexts are what a retriever found.

    Args:
        rng: what is drawn follows from it alone.
        held_out: names and phrases of the held-out split.
        num_passages: how many; drawn from 1 to 8 if None.
        num_questions: how many at most; drawn from 3 to 6 if None. No question comes twice.
        level: 0 has one passage of one fact, 1 the full task.
    """
    most = 1 + round((MAX_PASSAGES - 1) * level)
    count = num_passages or rng.choices(range(1, most + 1), PASSAGE_WEIGHTS[:most])[0]
    max_facts = 1 + round((MAX_FACTS - 1) * level)

    def answerable() -> bool:
        return rng.random() >= UNANSWERABLE_SHARE

    if rng.random() < RETRIEVED_SHARE:
        told, task = retrieve(rng, count, answerable(), max_facts, held_out, held_out)
    else:
        told = draw_told(rng, count, max_facts, held_out, held_out)
        task = ask(rng, told, answerable(), held_out, held_out)
    tasks = {(task.name, task.relation.name): task}
    for _ in range((num_questions or rng.randint(3, 6)) - 1):
        task = ask(rng, told, answerable(), held_out, held_out)
        tasks.setdefault((task.name, task.relation.name), task)
    messages: list[dict[str, str]] = []
    for task in tasks.values():
        messages += [
            {"role": "user", "content": task.question if messages else prompt(task)},
            {"role": "assistant", "content": task.answer},
        ]
    return Conversation(messages)
