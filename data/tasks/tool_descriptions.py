"""Descriptions of tools put together from phrases: thousands of ways to say what each of the four meanings does.

With a list of sentences a model learns the sentences; it has to learn what the words in them mean.
"""

from __future__ import annotations

import random
import re
import tomllib
from pathlib import Path
from typing import Any

GRAMMAR: dict[str, Any] = tomllib.loads((Path(__file__).parent / "tool_descriptions.toml").read_text(encoding="utf-8"))
TABLES = "tables"  # the one blank that is left for the tool's own tables
_SLOT = re.compile(r"\{(\w+)\}")


def compose(rng: random.Random, meaning: str) -> str:
    """A description of a tool with this meaning; `{tables}` in it stands for the tables that an SQL tool reads."""
    grammar = GRAMMAR[meaning]

    def fill(slot: re.Match[str]) -> str:
        name = slot[1]
        if name == TABLES:
            return slot[0]
        phrase: str = rng.choice(grammar["slots"][name.lower()])
        return phrase[0].upper() + phrase[1:] if name[0].isupper() else phrase

    return _SLOT.sub(fill, rng.choice(grammar["templates"]))
