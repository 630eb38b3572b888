"""Questions whose answer stands in what the user wrote, over one to four turns: to be read, as nothing can be known.

Held out are names (by the hash that `data/world/names.py` uses) and phrases (marked in `stated.toml`).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from data.tasks.talk.pen import FACTS, WORDS, Pen, Row, read
from data.world.names import new_name

SITUATIONS = read("stated.toml")["situation"]
OPEN_NAMES = 0.7  # share of the samples in which people and towns have names that occur nowhere else

Turn = tuple[str, str]  # what the user says, what the assistant answers


def stated(pen: Pen) -> list[Turn]:
    """What the user says of two people, with a first question; then up to three more questions."""
    situation = pen.rng.choice(SITUATIONS)
    draw = drawing(pen.rng, pen.held_out)
    both = people(situation["draw"], draw)
    said = " ".join(pen.write(ours(pen, situation, "say"), facts) for facts in pen.some(both, 2, 2))
    turns: list[Turn] = []
    for question in pen.some(situation["question"], 1, len(situation["question"])):
        facts = pen.rng.choice(both)
        asked = pen.write(ours(pen, question, "ask"), facts)
        turns.append((asked if turns else f"{said} {asked}", pen.write([question["answer"]], facts)))
    return turns


def ours(pen: Pen, bank: dict[str, list[str]], name: str) -> list[str]:
    """The phrases of the pen's side of the split."""
    return bank[f"{name}_held_out" if pen.held_out else name]


def people(columns: list[str], draw: dict[str, Callable[[], str]]) -> list[Row]:
    """The facts of two people, each column with two values; `_a` is the one that a phrase is about."""
    pairs = {column: different(draw[column]) for column in ["person", *columns]}
    return [
        {"a" if column == "person" else f"{column}_a": pair[who] for column, pair in pairs.items()} for who in (0, 1)
    ]


def different(draw: Callable[[], str]) -> tuple[str, str]:
    """Two draws that are not the same."""
    first = draw()
    while (second := draw()) == first:
        pass
    return first, second


def drawing(rng: Random, held_out: bool) -> dict[str, Callable[[], str]]:
    """How a value of each column is drawn."""
    first_names = rng.sample(WORDS["first"], len(WORDS["first"]))
    produce = [item for kind in ("fruits", "vegetables", "flowers", "tools") for item in FACTS["kinds"][kind]]
    draw: dict[str, Callable[[], str]] = {
        "job": lambda: rng.choice(list(FACTS["jobs"])),
        "thing": lambda: rng.choice(WORDS["thing"]),
        "adjective": lambda: rng.choice(WORDS["adjective"]),
        "kind": lambda: rng.choice(produce),
        "number": lambda: str(rng.randint(2, 99)),
        "day": lambda: rng.choice(WORDS["day"]),
        "place": lambda: rng.choice(WORDS["place"]),
    }
    if held_out or rng.random() < OPEN_NAMES:
        return draw | {
            "person": lambda: new_name(rng, "person", held_out),
            "friend": lambda: new_name(rng, "person", held_out),
            "town": lambda: new_name(rng, "town", held_out),
        }
    return draw | {
        "person": lambda: rng.choice(first_names[:20]),
        "friend": lambda: rng.choice(first_names[20:]),
        "town": lambda: rng.choice(FACTS["towns"])["town"],
    }
