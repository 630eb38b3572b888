"""The imaginary country: its names and their split, its facts, and the ways to tell and to ask them."""

import re
from random import Random

import pytest

from data.world.facts import Entity, draw_entity, draw_world
from data.world.names import MAKERS, is_held_out, new_name, pronoun, similar_name
from data.world.passages import article, passage
from data.world.phrases import OPENERS, PHRASES, answer, fill, no_answer, noun_phrase, question, sentence, statement
from data.world.schema import KINDS, RELATIONS, Relation

ALL = [relation for relations in RELATIONS.values() for relation in relations.values()]
every_relation = pytest.mark.parametrize("relation", ALL, ids=lambda relation: f"{relation.kind}.{relation.name}")
every_kind = pytest.mark.parametrize("kind", KINDS)


def table(relation: Relation) -> dict[str, list[str]]:
    return PHRASES[relation.kind][relation.name]


def test_each_kind_has_five_or_six_relations_and_a_phrase_table_for_each() -> None:
    assert KINDS == ("person", "town", "company", "bridge", "dish", "event")
    assert all(5 <= len(relations) <= 6 for relations in RELATIONS.values())
    tables = {(kind, name) for kind, phrases in PHRASES.items() for name in phrases if isinstance(phrases[name], dict)}
    assert tables == {(relation.kind, relation.name) for relation in ALL}


@pytest.mark.parametrize("kind", MAKERS)
def test_names_are_too_many_to_learn(kind: str) -> None:
    """Of n names drawn out of N about n * n / 2N come twice; 2,000 drawn out of 200,000 would give 10."""
    rng = Random(0)
    names = [MAKERS[kind](rng) for _ in range(2000)]
    assert len(names) - len(set(names)) < 20
    assert all(name.isascii() for name in names)


@every_kind
def test_new_names_keep_to_their_split(kind: str) -> None:
    rng = Random(1)
    assert not any(is_held_out(new_name(rng, kind)) for _ in range(100))
    assert all(is_held_out(new_name(rng, kind, held_out=True)) for _ in range(100))


def test_a_tenth_of_the_names_is_held_out() -> None:
    rng = Random(2)
    share = sum(is_held_out(MAKERS["person"](rng)) for _ in range(5000)) / 5000
    assert 0.08 < share < 0.12


@every_kind
@pytest.mark.parametrize("held_out", [False, True])
def test_a_similar_name_is_another_of_the_same_kind_and_split(kind: str, held_out: bool) -> None:
    rng = Random(3)
    for _ in range(30):
        name = new_name(rng, kind, held_out)
        other = similar_name(rng, kind, name)
        assert other != name
        assert is_held_out(other) == held_out
        assert len(other.split()) == len(name.split())
        if kind not in ("person", "town"):
            assert set(other.split()[1:]) == set(name.split()[1:]) or other.split()[0] == name.split()[0]


def test_people_of_one_first_name_share_a_pronoun() -> None:
    rng = Random(4)
    names = [new_name(rng, "person") for _ in range(200)]
    assert {pronoun(name) for name in names} == {"he", "she"}
    assert pronoun("Mira Tolvan") == pronoun("Mira Velk")


@pytest.mark.parametrize("held_out", [False, True])
def test_every_entity_that_a_fact_names_is_in_the_world(held_out: bool) -> None:
    world = draw_world(Random(5), {"bridge": 4, "event": 3}, held_out)
    assert len(world.by_kind("bridge")) == 4
    assert len(world.by_kind("event")) == 3
    for name, entity in world.entities.items():
        assert name == entity.name
        assert is_held_out(name) == held_out
        assert list(entity.facts) == list(RELATIONS[entity.kind])
        for relation in RELATIONS[entity.kind].values():
            value = entity.facts[relation.name]
            if relation.is_entity:
                assert world.entities[str(value)].kind == relation.type
            elif relation.is_number:
                assert relation.low <= int(value) <= relation.high
            elif relation.type == "word":
                assert value in relation.words
            else:
                assert relation.type == "river"
                assert is_held_out(str(value)) == held_out


def test_nobody_founds_or_designs_anything_as_a_child() -> None:
    world = draw_world(Random(6), {"person": 5, "company": 20, "bridge": 20}, held_out=False)
    for kind, year, maker in [("company", "founded", "founder"), ("bridge", "opened", "architect")]:
        for entity in world.by_kind(kind):
            born = world.entities[str(entity.facts[maker])].facts["birth_year"]
            assert 20 <= int(entity.facts[year]) - int(born) <= 35


def test_no_two_towns_share_a_mayor_while_others_could_govern() -> None:
    world = draw_world(Random(16), {"town": 30, "person": 30}, held_out=False)
    assert len({town.facts["mayor"] for town in world.by_kind("town")}) == 30


def test_a_seed_draws_the_same_world_again() -> None:
    assert draw_world(Random(7), {"dish": 3}, False) == draw_world(Random(7), {"dish": 3}, False)


def test_counts_are_as_often_short_as_long() -> None:
    rng = Random(8)
    digits = [len(str(draw_entity(rng, "town", "Velmora", False).facts["population"])) for _ in range(600)]
    assert set(digits) == {3, 4, 5}
    assert all(digits.count(length) > 120 for length in (3, 4, 5))


@every_relation
def test_phrases_are_enough_and_the_held_out_ones_are_others(relation: Relation) -> None:
    phrases = table(relation)
    for name, least, least_held_out in [("statements", 6, 2), ("questions", 7, 2), ("asides", 2, 1)]:
        assert len(set(phrases[name])) >= least
        assert len(set(phrases[f"held_out_{name}"])) >= least_held_out
    assert ("noun_phrases" in phrases) == relation.is_entity
    if relation.is_entity:
        assert len(set(phrases["noun_phrases"])) >= 2
        assert phrases["held_out_noun_phrases"]
    for name in phrases:
        if not name.startswith("held_out_"):
            assert not set(phrases[name]) & set(phrases[f"held_out_{name}"])


@every_relation
def test_a_fact_is_told_in_more_than_twenty_ways(relation: Relation) -> None:
    """Counted in what comes out, with the name and the value masked."""
    rng = Random(9)
    entity = draw_entity(rng, relation.kind, new_name(rng, relation.kind), held_out=False)
    ways = set()
    for _ in range(400):
        told = statement(rng, relation, entity, entity.name, held_out=False)
        assert told[0].isupper() or told[0].isdigit()
        assert told.endswith(".")
        ways.add(told)
    assert len(ways) >= 20


@every_relation
@pytest.mark.parametrize("held_out", [False, True])
def test_every_statement_has_the_subject_and_the_value(relation: Relation, held_out: bool) -> None:
    entity = draw_entity(Random(10), relation.kind, "Qqq Zzz", held_out=False)
    value = relation.written(entity.facts[relation.name])
    for template in table(relation)["held_out_statements" if held_out else "statements"]:
        told = fill(template, entity.name, value)
        assert entity.name in told
        assert told.count(value) == 1
        assert "{" not in told


@every_relation
@pytest.mark.parametrize("held_out", [False, True])
def test_every_relation_has_statements_that_start_with_their_subject(relation: Relation, held_out: bool) -> None:
    """An aside stands after the subject, so one such statement is needed; a possessive cannot follow the comma."""
    starting = [t for t in table(relation)["held_out_statements" if held_out else "statements"] if t[:4] == "{s} "]
    assert starting
    assert not any("{p}" in template for template in starting)


@every_relation
def test_every_question_asks_about_a_name_or_a_noun_phrase(relation: Relation) -> None:
    for template in table(relation)["questions"] + table(relation)["held_out_questions"]:
        assert re.findall(r"\{\w\}", template) == ["{s}"]
        assert template[-1] in "?."


@every_relation
def test_a_held_out_phrase_shares_a_word_with_a_training_one(relation: Relation) -> None:
    """Somebody who knows the training phrases must be able to understand it: no riddles."""

    def content(template: str) -> set[str]:
        """How its longer words begin: `founded` and `founder` are the same here."""
        words = re.findall(r"[a-z]{3,}", re.sub(r"\{\w\}", "", template.lower()))
        return {word[:4] for word in words} - {
            "the",
            "was",
            "how",
            "who",
            "has",
            "what",
            "whic",
            "does",
            "many",
            "with",
            "have",
            "know",
        }

    for name in ("statements", "questions"):
        known = set().union(*map(content, table(relation)["statements"] + table(relation)["questions"]))
        known |= content(relation.key)
        for template in table(relation)[f"held_out_{name}"]:
            assert content(template) & known, template


def test_a_question_may_follow_an_opener() -> None:
    asked = {question(Random(seed), RELATIONS["town"]["mayor"], "Velmora", held_out=False) for seed in range(2000)}
    assert "Who is the mayor of Velmora?" in asked
    openers = [opener.removesuffix("{question}") for opener in OPENERS["asking"]]
    followed = {text for text in asked if text.startswith(tuple(openers))}
    assert {text[: -len("who is the mayor of Velmora?")] for text in followed if "who is the mayor" in text} & set(
        openers
    )
    assert len(asked - followed) >= 20
    assert not any("velmora" in text or " i " in text for text in asked)


def test_held_out_phrases_and_training_ones_never_meet() -> None:
    relation = RELATIONS["town"]["population"]
    entity = draw_entity(Random(11), "town", "Velmora", held_out=False)
    ways = {}
    for held_out in (False, True):
        rng = Random(12)
        ways[held_out] = {statement(rng, relation, entity, "Velmora", held_out) for _ in range(300)} | {
            question(rng, relation, "Velmora", held_out) for _ in range(300)
        }
    assert not ways[False] & ways[True]
    assert not set(OPENERS["openers"]) & set(OPENERS["held_out_openers"])


def test_an_answer_restates_the_key_and_a_missing_one_begins_the_same() -> None:
    population, length = RELATIONS["town"]["population"], RELATIONS["bridge"]["length"]
    assert answer(population, "Velmora", 4210) == "The population of Velmora is 4210."
    assert no_answer(population, "Velmora") == "The population of Velmora is not given."
    assert answer(length, "Velk Bridge", 420) == "The length of Velk Bridge is 420 metres."


def test_a_noun_phrase_stands_for_the_other_entity() -> None:
    phrases = {noun_phrase(Random(seed), RELATIONS["person"]["born_in"], "Mira Tolvan", False) for seed in range(50)}
    assert "the town where Mira Tolvan was born" in phrases


def test_articles_and_possessives_follow_the_word() -> None:
    assert fill("{s} is {a} {v}", "Mira", "engineer") == "Mira is an engineer"
    assert fill("{p} job is that of {a} {v}", "she", "baker") == "her job is that of a baker"
    assert fill("{p} seat is {v}", "Velk Works", "Orun") == "Velk Works' seat is Orun"
    assert sentence("who is it?") == "Who is it?"
    assert sentence("4210 people live there") == "4210 people live there."


@every_kind
@pytest.mark.parametrize("held_out", [False, True])
def test_a_passage_names_its_entity_first_and_tells_just_what_it_should(kind: str, held_out: bool) -> None:
    rng = Random(13)
    for _ in range(60):
        entity = draw_entity(rng, kind, new_name(rng, kind, held_out), held_out)
        relations = rng.sample(list(RELATIONS[kind]), rng.randint(1, 4))
        told = passage(rng, entity, relations, held_out)
        assert entity.name in told.split(". ")[0]
        assert told.isascii()
        assert "{" not in told
        assert ".." not in told
        assert ",." not in told
        for name, relation in RELATIONS[kind].items():
            if name in relations:
                assert relation.written(entity.facts[name]).lower() in told.lower()
            elif relation.is_entity or relation.type == "river":
                assert str(entity.facts[name]) not in told


def test_an_article_has_every_fact_and_a_title() -> None:
    rng = Random(14)
    world = draw_world(rng, dict.fromkeys(KINDS, 3), held_out=True)
    for entity in world.entities.values():
        text = article(rng, world, entity)
        title, blank, body = text.split("\n", 2)
        assert title == entity.name
        assert not blank
        assert 1 <= body.count("\n\n") <= 2
        for name, relation in RELATIONS[entity.kind].items():
            assert relation.written(entity.facts[name]).lower() in body.lower()


def test_the_pen_never_changes_the_facts() -> None:
    entity = Entity("town", "Velmora", {"population": 4210})
    told = passage(Random(15), entity, ["population"], held_out=False)
    assert entity.facts == {"population": 4210}
    assert "4210" in told
