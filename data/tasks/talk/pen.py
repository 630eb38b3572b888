"""The words and fixed facts of the talk (`words.toml`), and the pen that writes phrases about them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

Row = dict[str, str]
Item = TypeVar("Item")


def read(name: str) -> dict[str, Any]:
    """A TOML file of this folder."""
    return tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))


FACTS = read("words.toml")
WORDS: dict[str, list[str]] = FACTS["words"]
WOMEN = set(FACTS["people"]["women"])


def bare(term: str) -> str:
    """`a token` -> `token`."""
    return re.sub("^an? ", "", term)


TABLES: dict[str, list[Row]] = {
    "animals": FACTS["animals"],
    "towns": FACTS["towns"],
    "capitals": [{"country": country, "city": city} for country, city in FACTS["capitals"].items()],
    "colours": [{"item": item, "colour": colour} for item, colour in FACTS["colours"].items()],
    "opposites": [
        {"left": a, "right": b} for pair in FACTS["opposites"].items() for a, b in (pair, tuple(reversed(pair)))
    ],
    "glossary": [{"term": term, "word": bare(term), "meaning": meaning} for term, meaning in FACTS["glossary"].items()],
}


class Pen:
    """Writes phrases. What it draws follows from its random generator alone.

    Attributes:
        held_out: write what is held out from training (see `split.py`), not what is trained.
    """

    def __init__(self, rng: Random, held_out: bool = False) -> None:
        self.rng = rng
        self.held_out = held_out

    def write(self, phrases: Sequence[str], facts: Mapping[str, str] | None = None) -> str:
        """Draw one of the phrases, fill its braces from `facts`, else from the word lists, and tidy it."""
        text = self.rng.choice(phrases).format_map(Filling(self.rng, facts or {}))
        text = re.sub(r"\b([Aa]) (?=[aeio]|u(?!s|ni))", r"\1n ", text)  # an old key, but a user
        return text[0].upper() + text[1:]

    def lines(self, groups: Sequence[Sequence[str]], facts: Mapping[str, str]) -> str:
        """One phrase of each group, as one paragraph."""
        return " ".join(self.write(phrases, facts) for phrases in groups)

    def person(self, but_not: str = "", name: str = "first") -> Row:
        """A first name under `name`, with the pronouns that go with it."""
        first = self.rng.choice([first for first in WORDS["first"] if first != but_not])
        return {name: first, **self.pronouns(first in WOMEN)}

    def pronouns(self, she: bool) -> Row:
        """He, him, his or she, her, her."""
        return {"he": "she", "him": "her", "his": "her"} if she else {"he": "he", "him": "him", "his": "his"}

    def friend_of(self, name: str) -> Row:
        """Somebody else and what they are to the person of that name: a sister, an uncle, a teacher."""
        friend = self.person(but_not=name)["first"]
        return {"friend": friend, "kin": self.rng.choice(WORDS["kin_she" if friend in WOMEN else "kin_he"])}

    def row(self, table: str) -> Row:
        """A row of one of the tables."""
        return self.rng.choice(TABLES[table])

    def some(self, items: Sequence[Item], least: int, most: int) -> list[Item]:
        """Between `least` and `most` of the items, in any order."""
        return self.rng.sample(items, self.rng.randint(least, most))

    def pick(self, options: Sequence[tuple[Any, int]]) -> Any:
        """One of the options, each with its weight."""
        values, weights = zip(*options, strict=True)
        return self.rng.choices(values, weights)[0]


class Filling(dict[str, str]):
    """The facts of a phrase, and a word drawn from its list for each name that is no fact."""

    def __init__(self, rng: Random, facts: Mapping[str, str]) -> None:
        super().__init__(facts)
        self.rng = rng

    def __missing__(self, name: str) -> str:
        return self.rng.choice(WORDS[name])


def join(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def bullets(items: Sequence[str]) -> Iterator[str]:
    """A line with a dash for each item."""
    return (f"- {item}" for item in items)


def numbered(items: Sequence[str]) -> Iterator[str]:
    """A line with a number for each item, from 1."""
    return (f"{number}. {item[0].upper()}{item[1:]}" for number, item in enumerate(items, 1))
