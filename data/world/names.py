"""Open names: made of syllables, so that there are more of them than a model can learn by heart."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from random import Random

#: One name in this many is held out of training.
HELD_OUT_ONE_IN = 10

ONSETS = tuple("bdfghjklmnprstvwz") * 2 + ("br", "dr", "gr", "kr", "tr", "st", "sk", "pl", "fl", "sh", "th", "kl")
VOWELS = tuple("aeiou") * 3 + ("ai", "ei", "ia", "au")
CODAS = ("", "", "", *"nlrsmktv", "nd", "rn", "lk", "st", "th")

COMPANIES = (
    "Works", "Mills", "Traders", "Group", "Brothers", "Foundry", "Partners", "Lines", "Supply", "Makers",
    "Labs", "Stores", "Union", "Press", "Motors",
)  # fmt: skip
BRIDGES = ("Bridge", "Viaduct", "Crossing", "Footbridge")
DISHES = (
    "stew", "soup", "pie", "bread", "cake", "salad", "omelette", "pudding", "porridge", "roast", "goulash", "curry",
)  # fmt: skip
EVENTS = ("Fair", "Festival", "Market", "Regatta", "Parade", "Race", "Games", "Carnival")


def is_held_out(name: str) -> bool:
    """Whether a name is kept for evaluation: a stable hash decides, so that no list has to be kept."""
    return zlib.crc32(name.encode()) % HELD_OUT_ONE_IN == 0


def syllables(rng: Random, least: int, most: int) -> str:
    """A capitalised word of `least` to `most` syllables."""
    parts = [rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.randint(least, most))]
    return "".join([*parts, rng.choice(CODAS)]).capitalize()


def letters(rng: Random) -> str:
    """Two to six small letters in no order of any language: what is copied need not look like a name."""
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 6)))


def _person(rng: Random) -> str:
    return f"{syllables(rng, 2, 2)} {syllables(rng, 2, 3)}"


def _town(rng: Random) -> str:
    return syllables(rng, 2, 3)


def _company(rng: Random) -> str:
    return f"{syllables(rng, 2, 3)} {rng.choice(COMPANIES)}"


def _bridge(rng: Random) -> str:
    return f"{syllables(rng, 2, 3)} {rng.choice(BRIDGES)}"


def _dish(rng: Random) -> str:
    return f"{syllables(rng, 2, 3)} {rng.choice(DISHES)}"


def _event(rng: Random) -> str:
    return f"{syllables(rng, 2, 3)} {rng.choice(EVENTS)}"


def _river(rng: Random) -> str:
    return syllables(rng, 2, 2)


#: Kind of name -> how one is made. A river is only ever a town's; it has no facts of its own.
MAKERS: dict[str, Callable[[Random], str]] = {
    "person": _person,
    "town": _town,
    "company": _company,
    "bridge": _bridge,
    "dish": _dish,
    "event": _event,
    "river": _river,
}


def new_name(rng: Random, kind: str, held_out: bool = False) -> str:
    """A name of the training split, or of the held-out one."""
    make = MAKERS[kind]
    while is_held_out(name := make(rng)) != held_out:
        pass
    return name


def similar_name(rng: Random, kind: str, name: str) -> str:
    """Another name of the same kind and split that shares a word or most of its letters with `name`."""
    while True:
        words = name.split()
        place = rng.randrange(len(words))
        if len(words) > 1 and rng.random() < 0.5:
            words[place] = MAKERS[kind](rng).split()[place]
        else:
            place = place if kind == "person" else 0  # the last word of the others says what they are
            words[place] = _misspelt(rng, words[place])
        other = " ".join(words)
        if other != name and is_held_out(other) == is_held_out(name):
            return other


def _misspelt(rng: Random, word: str) -> str:
    """The word with one letter after the first replaced by one of its sort, or with an ending more."""
    if rng.random() < 0.2:
        return word + rng.choice("aeo" if word[-1] not in "aeiou" else "nlrs")
    place = rng.randrange(1, len(word))
    letters = "aeiou" if word[place] in "aeiou" else "bdfgklmnprstvz"
    return word[:place] + rng.choice(letters) + word[place + 1 :]


def pronoun(name: str) -> str:
    """`he` or `she`: people of the same first name share it."""
    return "she" if zlib.crc32(name.split()[0].encode()) & 16 else "he"
