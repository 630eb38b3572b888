"""Sentences put together from phrases: thousands of ways to ask for something, or to say what a tool does.

With a list of sentences a model learns the sentences; it has to learn what the words in them mean.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

#: Share of the sentences in training that are put together; the others come from lists.
COMPOSED_SHARE = 0.7
_BLANK = re.compile(r"\{(\w+)\}")


def grammars(name: str) -> dict[str, Any]:
    """The grammars of one file: each has `templates`, and `slots` with the phrases that fill them."""
    return tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8"))


def compose(rng: random.Random, grammar: dict[str, Any], kept_apart: Collection[str] = ()) -> str:
    """A sentence of this grammar that is none of those kept apart; blanks that are no slots of it stay, as `{tables}`.

    A slot's phrase begins with a capital where the template writes the slot's name with one.
    """
    slots = grammar["slots"]

    def fill(blank: re.Match[str]) -> str:
        name = blank[1]
        if name.lower() not in slots:
            return blank[0]
        phrase: str = rng.choice(slots[name.lower()])
        return phrase[0].upper() + phrase[1:] if name[0].isupper() else phrase

    while (sentence := _BLANK.sub(fill, rng.choice(grammar["templates"]))) in kept_apart:
        pass
    return sentence
