"""What users ask of the tools: a goal, the words for it, and what the user says when asked back."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.tasks.phrasing import COMPOSED_SHARE, compose
from data.tasks.tool_arithmetic import PAIRS
from data.tasks.tool_goals import SAY, Combine, Compute, Convert, ConvertValue, Goal, Lookup, Say, subject_of, value_of
from data.tasks.tool_pool import POOL, REQUESTS
from data.world.facts import World
from data.world.names import is_held_out, similar_name
from data.world.phrases import answer, noun_phrase, question, statement
from data.world.schema import RELATIONS, Relation


@dataclass(frozen=True, slots=True)
class Round:
    """One message of the user, and what it asks for."""

    text: str
    goal: Goal


Request = tuple[Round, ...]
# How two facts are combined, by the sort of phrase.
FORMULAS = {"difference": "{0} - {1}", "surplus": "{0} - {1}", "difference_swapped": "{1} - {0}", "total": "{0} + {1}"}


class Impossible(Exception):
    """This world or these kinds have nothing of that sort to ask."""


class Asker:
    """Draws requests about the entities of some kinds.

    Args:
        rng: where all draws come from.
        world: whose entities are asked about.
        kinds: the kinds that are asked about.
        held_out: use only phrases that training never sees.
    """

    def __init__(self, rng: random.Random, world: World, kinds: Sequence[str], held_out: bool) -> None:
        self.rng = rng
        self.world = world
        self.kinds = kinds
        self.held_out = held_out
        self.ask: dict[str, list[str]] = POOL["ask"]["held_out"] if held_out else POOL["ask"]

    def _choose(self, fits: Callable[[Relation], bool]) -> Relation:
        options = [relation for kind in self.kinds for relation in RELATIONS[kind].values() if fits(relation)]
        if not options:
            raise Impossible
        return self.rng.choice(options)

    def _name(self, kind: str) -> str:
        return self.rng.choice(self.world.by_kind(kind)).name

    def _lookup(self, hops: int, fits: Callable[[Relation], bool] = lambda _: True) -> Lookup:
        """A lookup of a fitting relation, through `hops` entities that lead to it."""
        goal_relation = self._choose(fits)
        chain = [goal_relation]
        for _ in range(hops):
            kind = chain[0].kind
            chain.insert(0, self._choose(lambda relation, kind=kind: relation.type == kind))  # type: ignore[misc]
        subject: str | Lookup = self._name(chain[0].kind)
        for relation in chain:
            subject = Lookup(relation, subject)
        assert isinstance(subject, Lookup)
        return subject

    def _subject(self, subject: str | Lookup) -> str:
        if isinstance(subject, str):
            return subject
        return noun_phrase(self.rng, subject.relation, self._subject(subject.subject), self.held_out)

    def _key(self, lookup: Lookup) -> str:
        """The looked up value as a noun phrase: "the population of the town where Mira Tolvan was born"."""
        return lookup.relation.key.format(name=self._subject(lookup.subject))

    def _question(self, lookup: Lookup) -> str:
        return question(self.rng, lookup.relation, self._subject(lookup.subject), self.held_out)

    def _words(self, sort: str, **parts: object) -> str:
        if not self.held_out and sort in REQUESTS and self.rng.random() < COMPOSED_SHARE:
            phrase = compose(self.rng, REQUESTS[sort], kept_apart=POOL["ask"]["held_out"][sort])
        else:
            phrase = self.rng.choice(self.ask[sort])
        return phrase.format(**parts)

    def fact(self, hops: int) -> Request:
        """A fact, through `hops` entities."""
        lookup = self._lookup(hops)
        return (Round(self._question(lookup), lookup),)

    def fact_in_unit(self) -> Request:
        """A measured fact in another unit."""
        lookup = self._lookup(0, lambda relation: relation.unit in PAIRS)
        unit = PAIRS[lookup.relation.unit]
        if self.rng.random() < 0.5:
            text = self._words("in_unit", first=self._key(lookup), unit=unit)
        else:
            text = f"{self._question(lookup)} {self._words('answer_in', unit=unit)}"
        return (Round(text[0].upper() + text[1:], Convert(lookup, unit)),)

    def _pair(self, hops: int, fits: Callable[[Relation], bool]) -> tuple[Lookup, Lookup]:
        """The same relation of two entities, the first of which is `hops` entities away."""
        first = self._lookup(hops, fits)
        second = Lookup(first.relation, self._name(first.relation.kind))
        if second.subject == subject_of(self.world, first):
            raise Impossible
        return first, second

    def two_facts(self, hops: int) -> Request:
        """The sum or the difference of two facts; the first is `hops` entities away."""
        first, second = self._pair(hops, lambda relation: relation.is_number)
        sorts = ["difference", "difference_swapped", *(["total"] * (first.relation.type == "count") * 2)]
        if int(value_of(self.world, first)) > int(value_of(self.world, second)):
            sorts.append("surplus")
        sort = self.rng.choice(sorts)
        text = self._words(sort, first=self._key(first), second=self._key(second))
        return (Round(text, Combine(first, second, FORMULAS[sort], "total" if sort == "total" else "difference")),)

    def total_in_unit(self) -> Request:
        """The sum of two measured facts in another unit."""
        first, second = self._pair(0, lambda relation: relation.unit in PAIRS)
        unit = PAIRS[first.relation.unit]
        text = self._words("total", first=self._key(first), second=self._key(second))
        text = f"{text} {self._words('answer_in', unit=unit)}"
        return (Round(text, Convert(Combine(first, second, FORMULAS["total"], "total"), unit)),)

    def _formula(self) -> str:
        a, b, c = (self.rng.randint(2, 10 ** self.rng.randint(1, 4)) for _ in range(3))
        one, two = self.rng.choice("+-*/"), self.rng.choice("+-*")
        return self.rng.choice([f"{a} {one} {b}"] * 3 + [f"({a} {two} {b}) {one} {c}", f"{a} {two} {b} {one} {c}"])

    def arithmetic(self) -> Request:
        """A formula, sometimes written in words."""
        formula = self._formula()
        spoken = formula
        if "(" not in formula and self.rng.random() < 0.5:
            for sign, word in (("+", "plus"), ("-", "minus"), ("*", "times"), ("/", "divided by")):
                spoken = spoken.replace(sign, word)
        return (Round(self._words("arithmetic", sum=spoken), Compute(formula)),)

    def conversion(self, misspelt: bool = False) -> Request:
        """A number in another unit; a misspelt unit goes to the tool as the user wrote it."""
        source = self.rng.choice(list(PAIRS))
        target, value = PAIRS[source], self.rng.randint(10, 10 ** self.rng.randint(2, 4))
        if misspelt:
            source = self._slip(source)
            if source in PAIRS or len(source) < 4:
                raise Impossible
        text = self._words("conversion", value=value, **{"from": source, "to": target})
        return (Round(text, ConvertValue(value, source, target)),)

    def _slip(self, word: str) -> str:
        """The word with a letter after the first doubled or left out."""
        place = self.rng.randrange(1, len(word))
        return word[:place] + self.rng.choice((word[place] * 2, "")) + word[place + 1 :]

    def misspelt(self) -> Request:
        """A question about a name that is not quite an entity's."""
        lookup = self._lookup(0)
        assert isinstance(lookup.subject, str)
        first, _, last = lookup.subject.partition(" ")
        # Search finds a person by the last name when the first one is misspelt.
        slip = lookup.relation.kind == "person" and self.rng.random() < 0.7
        name = f"{self._slip(first)} {last}" if slip else similar_name(self.rng, lookup.relation.kind, lookup.subject)
        if is_held_out(name) != is_held_out(lookup.subject) or name in self.world.entities:
            raise Impossible
        wrong = Lookup(lookup.relation, name)
        return (Round(self._question(wrong), wrong),)

    def stated(self) -> Request:
        """A question whose answer the user has just given."""
        lookup = self._lookup(0)
        assert isinstance(lookup.subject, str)
        entity = self.world.entities[lookup.subject]
        told = statement(self.rng, lookup.relation, entity, entity.name, self.held_out)
        value = entity.facts[lookup.relation.name]
        reply = Say(answer(lookup.relation, entity.name, value), str(value))
        return (Round(f"{told} {self._question(lookup)}", reply),)

    def small_talk(self) -> Request:
        """A greeting, or thanks."""
        sort = self.rng.choice(("greeting", "thanks"))
        return (Round(self._words(sort), Say(SAY[sort])),)

    def impossible(self) -> Request:
        """Something that no tool here does."""
        return (Round(self._words("impossible"), Say(SAY["impossible"])),)

    def no_subject(self) -> Request:
        """A question that does not say about whom; the user names it when asked."""
        lookup = self._lookup(0)
        kind = lookup.relation.kind
        text = question(self.rng, lookup.relation, f"the {kind}", self.held_out)
        return Round(text, Say(SAY["which"].format(kind=kind))), Round(f"{lookup.subject}.", lookup)

    def no_unit(self) -> Request:
        """A conversion that does not say into what; the user names it when asked."""
        goal = self.conversion()[0].goal
        assert isinstance(goal, ConvertValue)
        text = self._words("no_unit", value=goal.value, **{"from": goal.source})
        return Round(text, Say(SAY["no_unit"])), Round(f"{goal.target[0].upper()}{goal.target[1:]}.", goal)

    def no_sum(self) -> Request:
        """A sum that is still to be told."""
        formula = self._formula()
        return Round(self._words("no_sum"), Say(SAY["no_sum"])), Round(formula, Compute(formula))
