"""Tool conversations: what a user asks, the calls that an oracle makes of the real tools, and the answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data.tasks.sample import Conversation
from data.tasks.tool_dialogue import Dialogue
from data.tasks.tool_goals import Answer, Oracle
from data.tasks.tool_requests import Round
from data.tasks.tool_scene import HeldOut, Scene, draw_scene
from data.tasks.tool_slips import with_slip
from data.tasks.tool_sorts import SORTS, taking

# How often a request finds no tool or no fact, a tool is busy once, and a call is wrong before it is right.
AMISS, BUSY_RATE, SLIP_RATE = 0.08, 0.06, 0.2


def tool_conversation(rng: random.Random, level: float, held_out: bool = False) -> Conversation:
    """A conversation of one to four requests; at `level` 0 each takes one call, at 1 there is everything."""
    hard = rng.random() < level
    weights = {name: sort.weight for name, sort in SORTS.items()} if hard else dict.fromkeys(taking(1), 1)
    sort = rng.choices(list(weights), list(weights.values()))[0]
    later = {other: weight for other, weight in weights.items() if other != "no_subject"}
    more = [later] * rng.choice((0, 1, 1, 2) if hard else (1, 2, 3))
    num_tools = rng.choices((2, 3, 4, 5), (25, 40, 25, 10))[0] if hard else 2
    split = HeldOut(held_out, held_out, held_out)
    scene, rounds = draw_scene(rng, sort, more, num_tools, AMISS * hard, split)
    busy = [rng.randrange(4)] if hard and rng.random() < BUSY_RATE else []
    dialogue, _ = play_oracle(scene, rounds, busy)
    if not (hard and rng.random() < SLIP_RATE):
        return Conversation(dialogue.messages, dialogue.tools)
    messages, wrong = with_slip(rng, dialogue.messages, scene.toolbox())
    return Conversation(messages, dialogue.tools, wrong)


def play_oracle(scene: Scene, rounds: Sequence[Round], busy: Sequence[int] = ()) -> tuple[Dialogue, list[Answer]]:
    """The dialogue in which the oracle answers every round with live tools, and its answers."""
    dialogue = Dialogue(scene, rounds, busy)
    oracle = Oracle(dialogue.toolbox)
    answers = []
    for turn in rounds:
        steps = oracle.solve(turn.goal)
        try:
            call = next(steps)
            while True:
                dialogue.act("", [call])
                call = steps.send(dialogue.messages[-1]["content"])
        except StopIteration as finished:
            answers.append(finished.value)
            dialogue.act(finished.value.text, [])
    return dialogue, answers


@dataclass(frozen=True, slots=True)
class ToolTask:
    """Requests to be answered with live tools.

    Attributes:
        scene: the world and the listed tools.
        rounds: what the user says, in order; mostly one request.
        answers: the oracle's answer to each round.
        num_calls: how many calls the oracle makes.
        busy: the calls, counted from 0, that find the tool busy.
    """

    scene: Scene
    rounds: tuple[Round, ...]
    answers: tuple[Answer, ...]
    num_calls: int
    busy: tuple[int, ...] = ()

    @property
    def question(self) -> str:
        """What the user says first."""
        return self.rounds[0].text

    def dialogue(self) -> Dialogue:
        """A fresh conversation about this task."""
        return Dialogue(self.scene, self.rounds, self.busy)

    def outcome(self, dialogue: Dialogue) -> Outcome:
        """How a conversation that is over went."""
        pairs = zip(dialogue.answers, self.answers, strict=False)
        solved = len(dialogue.answers) == len(self.answers) and all(right.accepts(text) for text, right in pairs)
        return Outcome(solved, dialogue.num_calls, dialogue.num_valid, tuple(dialogue.messages))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a live conversation went.

    Attributes:
        solved: every answer was right.
        num_calls: the calls that the model made.
        num_valid: those that were valid JSON for a listed tool, with its arguments in their types.
        transcript: the messages.
    """

    solved: bool
    num_calls: int
    num_valid: int
    transcript: tuple[dict[str, Any], ...]


def make_task(scene: Scene, rounds: Sequence[Round], busy: Sequence[int] = ()) -> ToolTask:
    """The task of answering these rounds; the oracle says what is right."""
    dialogue, answers = play_oracle(scene, rounds, busy)
    return ToolTask(scene, tuple(rounds), tuple(answers), dialogue.num_calls, tuple(busy))


def run_task(task: ToolTask, reply: Callable[[list[dict[str, Any]], list[dict[str, Any]]], str]) -> Outcome:
    """Play a task to its end; `reply` writes the assistant's next message from the messages and the tools."""
    dialogue = task.dialogue()
    while (prompt := dialogue.next_prompt) is not None:
        dialogue.feed(reply(prompt, dialogue.tools))
    return task.outcome(dialogue)


def draw_tool_task(
    rng: random.Random,
    *,
    num_calls: int,
    held_out_names: bool = True,
    held_out_phrases: bool = True,
    held_out_tools: bool = False,
    num_tools: int | None = None,
) -> ToolTask:
    """One request that takes exactly `num_calls` calls (0 to 4), among two to four listed tools.

    Raises:
        ValueError: no request takes so many calls.
    """
    split = HeldOut(held_out_names, held_out_phrases, held_out_tools)
    while True:
        sort = rng.choice(taking(num_calls))
        scene, rounds = draw_scene(rng, sort, [], num_tools or rng.choice((2, 3, 4)), 0, split)
        task = make_task(scene, rounds)
        if task.num_calls == num_calls:
            return task
