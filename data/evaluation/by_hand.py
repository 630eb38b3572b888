"""The set written by hand: wordings that no template of the course makes, over a small world of its own."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.evaluation.candidate import Candidate
from data.evaluation.score import Rate, Rates, judge
from data.evaluation.tools import play, valid_calls
from data.tasks.reading import labelled
from data.tasks.tool_dialogue import Dialogue
from data.tasks.tool_goals import Answer, Say
from data.tasks.tool_pool import Tool, tables
from data.tasks.tool_requests import Round
from data.tasks.tool_scene import Scene
from data.tasks.toolbox import Passage
from data.world.facts import Entity, World

_SET: dict[str, Any] = tomllib.loads((Path(__file__).parent / "by_hand.toml").read_text(encoding="utf-8"))
#: The tool items as they were written, with the calls that solve them.
ROWS: list[dict[str, Any]] = _SET["tool"]
_TYPES = {"value": "number"}  # of an argument, by its role; the others are strings


@dataclass(frozen=True, slots=True)
class ReadingItem:
    """A question over passages; `value` is None and `label` 0 where none of them answers it."""

    passages: tuple[str, ...]
    question: str
    value: str | None
    label: int

    @property
    def prompt(self) -> str:
        """What the user says."""
        return f"{labelled(self.passages)}\n\n{self.question}"


@dataclass(frozen=True, slots=True)
class ToolItem:
    """A question for listed tools; an answer that has `value` as a word is right."""

    question: str
    value: str
    scene: Scene

    def dialogue(self) -> Dialogue:
        """A fresh conversation about it."""
        return Dialogue(self.scene, [Round(self.question, Say(""))])


def tool_of(name: str, listed: Sequence[str]) -> Tool:
    """A tool of the set, with the SQL tables that it lists."""
    entry = _SET["listed"][name]
    arguments: dict[str, str] = entry["arguments"]
    return Tool(
        entry["meaning"],
        entry["name"],
        entry["description"].replace("{tables}", tables(listed)),
        arguments,
        {role: _TYPES.get(role, "string") for role in arguments},
    )


def _world() -> World:
    facts = {"kind", "name"}
    return World(
        {
            row["name"]: Entity(row["kind"], row["name"], {key: row[key] for key in row if key not in facts})
            for row in _SET["entity"]
        }
    )


def _tools() -> tuple[ToolItem, ...]:
    world = _world()
    passages = tuple(Passage(row["title"], (), row["text"]) for row in _SET["page"])
    items = []
    for row in ROWS:
        kinds = tuple(row.get("tables", ()))
        scene = Scene(world, kinds, passages, tuple(tool_of(name, kinds) for name in row["tools"]))
        items.append(ToolItem(row["question"], row["value"], scene))
    return tuple(items)


READING = tuple(
    ReadingItem(tuple(row["passages"]), row["question"], row.get("value"), row.get("label", 0))
    for row in _SET["reading"]
)
TOOLS = _tools()


def judge_reading(replies: Sequence[str]) -> Rates:
    """How many replies have the right value and citation, or abstain where they should."""
    judged = [judge(text, item.value, item.label) for item, text in zip(READING, replies, strict=True)]
    pairs = list(zip(READING, judged, strict=True))
    return {
        "right": Rate.of(one.right if item.value is not None else one.abstained for item, one in pairs),
        "value and citation": Rate.of(one.right for item, one in pairs if item.value is not None),
        "value": Rate.of(one.value for item, one in pairs if item.value is not None),
        "abstained where it should": Rate.of(one.abstained for item, one in pairs if item.value is None),
    }


def judge_tools(dialogues: Sequence[Dialogue]) -> Rates:
    """How many dialogues end with an answer that has the value."""
    return {
        "solved": Rate.of(
            bool(dialogue.answers) and Answer("", item.value).accepts(dialogue.answers[0])
            for item, dialogue in zip(TOOLS, dialogues, strict=True)
        ),
        "valid calls": valid_calls(dialogues),
    }


def solve(candidate: Candidate) -> Rates:
    """Let the model work on the tool items."""
    dialogues = [item.dialogue() for item in TOOLS]
    play(candidate, dialogues)
    return judge_tools(dialogues)


def rows(candidate: Candidate) -> Iterator[tuple[str, Callable[[], Rates]]]:
    """Each row's name, and what measures it."""
    yield "reading", lambda: judge_reading([reply.text for reply in candidate.ask([item.prompt for item in READING])])
    yield "tools", lambda: solve(candidate)
