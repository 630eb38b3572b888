"""The shipped encyclopaedia: rebuilt byte for byte, true to its database, and of names that training never meets."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import mean, pstdev

import pytest

from data.world.build import COUNTS, FOLDER, NUM_REQUESTS, build
from data.world.database import open_database
from data.world.names import is_held_out, pronoun
from data.world.phrases import PHRASES
from data.world.schema import KINDS, RELATIONS, Relation
from tinyllm.traces import PUBLISHED_MEANS

FILES = ("articles.jsonl", "facts.sql", "traces.json")
ARTICLES = [json.loads(line) for line in (FOLDER / "articles.jsonl").read_text(encoding="utf-8").splitlines()]

Row = dict[str, int | str]


@pytest.fixture(scope="module")
def database() -> sqlite3.Connection:
    return open_database(FOLDER / "facts.sql")


@pytest.fixture(scope="module")
def rows(database: sqlite3.Connection) -> dict[str, tuple[str, Row]]:
    """Name -> kind, and the row of the database."""
    found: dict[str, tuple[str, Row]] = {}
    for kind in KINDS:
        cursor = database.execute(f"SELECT * FROM {kind}")
        columns = [column[0] for column in cursor.description]
        for values in cursor:
            assert values[0] not in found
            found[values[0]] = kind, dict(zip(columns, values, strict=True))
    return found


def test_the_seed_gives_the_shipped_bytes(tmp_path: Path) -> None:
    build(tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_it_is_small_enough_to_ship() -> None:
    assert sum((FOLDER / name).stat().st_size for name in FILES) < 2_000_000


def test_an_article_for_each_row(rows: dict[str, tuple[str, Row]]) -> None:
    assert len(ARTICLES) == 2000
    assert [article["id"] for article in ARTICLES] == list(range(1, 2001))
    assert {article["title"]: article["kind"] for article in ARTICLES} == {
        name: kind for name, (kind, _) in rows.items()
    }
    assert Counter(article["kind"] for article in ARTICLES) == COUNTS


def test_every_name_is_held_out(rows: dict[str, tuple[str, Row]]) -> None:
    assert all(map(is_held_out, rows))
    assert all(is_held_out(str(row["river"])) for kind, row in rows.values() if kind == "town")


def test_every_reference_leads_somewhere(rows: dict[str, tuple[str, Row]]) -> None:
    for kind, row in rows.values():
        for relation in RELATIONS[kind].values():
            if relation.is_entity:
                assert rows[str(row[relation.name])][0] == relation.type


# The value of a relation in a sentence, by its type: what the phrases are read with, apart from what wrote them.
NAME = "[A-Z][a-z]+ [A-Z][a-z]+"
VALUES = {"count": r"\d+", "year": r"\d{4}", "river": "[A-Z][a-z]+", "town": "[A-Z][a-z]+", "word": "[A-Za-z]+"}


def value_of(relation: Relation) -> str:
    pattern = "|".join(relation.words) if relation.words else VALUES.get(relation.type, NAME)
    return rf"(?P<value>{pattern})" + (f" {relation.unit}" if relation.unit else "")


@cache
def patterns(kind: str, he: str) -> list[tuple[Relation, re.Pattern[str]]]:
    """A regular expression for each statement and aside about something called @ or `he`."""
    him, his = {"he": ("him", "his"), "she": ("her", "her"), "it": ("it", "its")}[he]
    the = () if kind == "person" else (f"the {kind}", f"The {kind}")
    subjects = {
        "{s}": ["@, [^,]+,", "@", he, he.capitalize(), *the],
        "{o}": ["@", him, *the],
        "{p}": ["@'s?", his, his.capitalize(), *(f"{noun}'s" for noun in the)],
    }
    found = []
    for name, relation in RELATIONS[kind].items():
        phrases = PHRASES[kind][name]
        templates = [f"{template}(?=[.,])" for template in phrases["statements"]]
        for template in templates + [f"{{s}}, {template}," for template in phrases["asides"]]:
            start = f"[{template[0]}{template[0].upper()}]" if template[0].islower() else template[0]
            pattern = (start + template[1:]).replace("{a}", "an?").replace("{v}", value_of(relation))
            for form, words in subjects.items():
                pattern = pattern.replace(form, f"(?:{'|'.join(words)})")
            flags = re.IGNORECASE if relation.type == "word" else re.NOFLAG
            found.append((relation, re.compile(rf"(?<!\w){pattern}", flags)))
    return found


def readings(text: str, kind: str, name: str) -> Iterator[tuple[str, Relation, int | str]]:
    """Where a template fits, its relation and the value that it reads there."""
    masked = re.sub(rf"\b{name}\b", "@", text)
    for relation, pattern in patterns(kind, pronoun(name) if kind == "person" else "it"):
        for match in pattern.finditer(masked):
            yield match[0], relation, int(match["value"]) if relation.is_number else match["value"]


def told(text: str, kind: str, row: Row) -> set[str]:
    """The relations that a paragraph tells of an entity.

    Raises:
        AssertionError: a sentence says something else than the database.
    """
    agreed: dict[str, set[str]] = {}
    wrong = {}
    for span, relation, value in readings(text, kind, str(row["name"])):
        if str(value).lower() == str(row[relation.name]).lower():
            agreed.setdefault(span, set()).add(relation.name)
        else:
            wrong[span] = relation.name, value
    # "was born in Velmora" fits two relations; one of them has to agree.
    assert not wrong.keys() - agreed.keys(), (text, wrong)
    return set().union(*agreed.values())


def test_every_sentence_agrees_with_the_database(rows: dict[str, tuple[str, Row]]) -> None:
    for article in ARTICLES:
        kind, row = rows[article["title"]]
        paragraphs = article["text"].split("\n\n")
        assert len(paragraphs) in (2, 3)
        relations = set().union(*(told(paragraph, kind, row) for paragraph in paragraphs[:2]))
        assert relations == set(RELATIONS[kind]), (article, set(RELATIONS[kind]) - relations)
        for paragraph in paragraphs[2:]:
            others = [str(value) for value in row.values() if str(value) in rows and str(value) in paragraph]
            assert any(told(paragraph, *rows[other]) for other in others), paragraph


def test_a_changed_fact_is_noticed(rows: dict[str, tuple[str, Row]]) -> None:
    """The reader above is not blind: with any one value replaced in the database, it objects or misses the fact."""
    for kind in KINDS:
        article = next(article for article in ARTICLES if article["kind"] == kind)
        row = rows[article["title"]][1]
        for name, relation in RELATIONS[kind].items():
            other = 4321 if relation.is_number else "nothing"
            try:
                found = {
                    n for part in article["text"].split("\n\n")[:2] for n in told(part, kind, {**row, name: other})
                }
            except AssertionError:
                continue
            assert name not in found, relation


def test_the_database_can_only_be_read(database: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.execute("DELETE FROM town")


def test_the_database_joins(database: sqlite3.Connection) -> None:
    """A question of two hops, answered in one query."""
    query = "SELECT town.population FROM bridge JOIN town ON bridge.town = town.name"
    populations = [row[0] for row in database.execute(query)]
    assert len(populations) == COUNTS["bridge"]
    assert all(isinstance(population, int) for population in populations)


def test_traces_have_the_published_means_and_the_arrivals_their_shape() -> None:
    traces = json.loads((FOLDER / "traces.json").read_text(encoding="utf-8"))
    for name, means in PUBLISHED_MEANS.items():
        for side, expected in zip(("prompt", "output"), means, strict=True):
            lengths = traces["lengths"][f"{name} {side} tokens"]
            assert len(lengths) == NUM_REQUESTS
            assert min(lengths) >= 1
            assert mean(lengths) == pytest.approx(expected, rel=0.15)
    for name, variation in [("poisson", 1.0), ("bursty", 2.0)]:
        times = traces["arrivals"][name]
        gaps = [later - sooner for sooner, later in zip([0.0, *times], times, strict=False)]
        assert len(times) == NUM_REQUESTS
        assert min(gaps) >= 0
        assert mean(gaps) == pytest.approx(1.0, rel=0.15)
        assert pstdev(gaps) / mean(gaps) == pytest.approx(variation, rel=0.2)


def test_the_datasheet_states_the_counts() -> None:
    sheet = (FOLDER / "README.md").read_text(encoding="utf-8")
    for kind, count in COUNTS.items():
        assert re.search(rf"\| {kind} \| {count} \|", sheet), kind
    for name in FILES:
        assert f"`{name}`" in sheet
