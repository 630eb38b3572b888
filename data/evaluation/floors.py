"""Floors: what simple rules without a model reach on the same tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from random import Random
from typing import Any

from data.tasks.tool_calls import ToolCall
from data.tasks.tool_dialogue import Dialogue

MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
# Words of a question -> what its answer looks like; the first that fits counts.
ASKED = (
    (r"\bmonth\b|time of (?:the )?year", rf"\b(?:{MONTH})\b"),
    (r"\bwhen\b|\byear\b|\bsince\b|\bdate\b|\bold\b", r"\b1[0-9]{3}\b|\b20[0-2][0-9]\b"),
    (r"how (?:many|long|wide|large|big|much|far|soon)|number|population|length|width|minutes", r"\b\d+(?:\.\d+)?\b"),
    (r"\bwhom?\b|\bwhose\b|mayor|founder|architect|inventor|organiser|person", r"\b[A-Z][a-z]+ [A-Z][a-z]+\b"),
    (r"river|where|town|place|home|seat|origin", r"(?<!^)(?<![.!?] )\b[A-Z][a-z]+\b"),
    (r"compan|employ|firm", r"\b[A-Z][a-z]+ [A-Z][a-z]+\b"),
    (r"", r"\b[a-z]{3,}\b(?=[.,]|$)"),
)
_NAME = re.compile(r"\b[A-Z][a-z]+(?: (?:[A-Z][a-z]+|[a-z]+))?\b")
_CLAUSE_END = re.compile(r"(?<=[.!?;,:]) | and ")
_WORDS = re.compile(r"[a-z]{4,}")


def stems(text: str) -> set[str]:
    """The longer words of a text, cut to their first five letters."""
    return {word[:5] for word in _WORDS.findall(text.lower())}


def values_in(sentence: str, question: str) -> list[str]:
    """What in a sentence looks like the answer to the question and does not stand in the question itself."""
    pattern = next(pattern for asked, pattern in ASKED if re.search(asked, question, re.IGNORECASE))
    return [value for value in re.findall(pattern, sentence) if value not in question]


def subjects_in(question: str) -> list[str]:
    """The names that a question may be about, the longest first; its first word is capitalised anyway."""
    names = [match.group() for match in _NAME.finditer(question) if match.start()]
    return sorted({*names, *(name.split()[0] for name in names)}, key=len, reverse=True)


def extract(question: str, passages: Sequence[str]) -> str:
    """An answer by rules: in the passages that name the subject, the last fitting value of the likeliest clause."""
    for subject in subjects_in(question):
        best: tuple[int, str, int] | None = None
        for label, passage in enumerate(passages, 1):
            if subject in passage:
                for clause in _CLAUSE_END.split(passage):
                    values = values_in(clause, question)
                    score = len(stems(clause) & stems(question))
                    if values and (best is None or score > best[0]):
                        best = (score, values[-1], label)
        if best:
            return f"{best[1]} [{best[2]}]."
    return "not given"


def first_passage(question: str, passages: Sequence[str]) -> str:
    """The same rules, but it is always the first passage that is read and cited."""
    values = values_in(passages[0], question)
    return f"{values[-1]} [1]." if values else "not given"


def random_tool(dialogue: Dialogue, rng: Random) -> None:
    """Play a dialogue by calling one of its tools at random with what stands in the question; the result is the answer.

    A tool that runs SQL gets nothing that it understands; the others get the formula, the number or the name.
    """
    while (messages := dialogue.next_prompt) is not None:
        question = messages[-1]["content"]
        function = rng.choice(list(dialogue.tools))["function"]
        properties = function["parameters"]["properties"]
        dialogue.act("", [ToolCall(function["name"], {name: fill(question, p) for name, p in properties.items()})])
        result = dialogue.messages[-1]["content"]
        values = values_in(result, question) or [result]
        dialogue.act(values[-1], [])


def fill(question: str, schema: dict[str, Any]) -> float | str:
    """An argument for a schema from the question's own words."""
    number = re.search(r"\d+", question)
    if schema["type"] == "number":
        return json.loads(number.group()) if number else 0
    formula = re.search(r"[\d(][\d ()+*/-]*[\d)]", question)
    return formula.group() if formula else next(iter(subjects_in(question)), question)
