"""Tool conversations: what a user asks, the calls that an oracle makes of the real tools, and the answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data.tasks.sample import Conversation
from data.tasks.tool_calls import ToolCall
from data.tasks.tool_goals import Oracle
from data.tasks.tool_requests import BY_CALLS, Round
from data.tasks.tool_scene import HeldOut, Scene, draw_scene

#: Sort of request -> how often it is drawn at the end of the curriculum.
WEIGHTS = {
    "fact": 10, "arithmetic": 4, "conversion": 4,
    "hop": 12, "fact_in_unit": 8,
    "two_hops": 9, "two_facts": 10,
    "hop_and_fact": 8, "total_in_unit": 6,
    "misspelt": 4, "misspelt_unit": 2, "stated": 4, "small_talk": 2, "impossible": 2,
    "no_subject": 3, "no_unit": 2, "no_sum": 1,
}  # fmt: skip
# How often nothing states what is asked for, and a tool is busy once.
NOT_GIVEN, BUSY_RATE = 0.05, 0.06


def tool_conversation(rng: random.Random, level: float, held_out: bool = False) -> Conversation:
    """A conversation of one to four requests; at `level` 0 each takes one call, at 1 there is everything."""
    hard = rng.random() < level
    weights = WEIGHTS if hard else dict.fromkeys(BY_CALLS[1], 1)
    sort = rng.choices(list(weights), list(weights.values()))[0]
    later = {other: weight for other, weight in weights.items() if other != "no_subject"}
    more = [later] * rng.choice((0, 1, 1, 2) if hard else (1, 2, 3))
    num_tools = rng.choices((2, 3, 4, 5), (35, 40, 20, 5))[0] if hard else 2
    split = HeldOut(held_out, held_out, held_out)
    scene, rounds = draw_scene(rng, sort, more, num_tools, NOT_GIVEN * hard, split)
    busy = [rng.randrange(4)] if hard and rng.random() < BUSY_RATE else []
    return Conversation(oracle_messages(scene, rounds, busy), scene.definitions)


def oracle_messages(scene: Scene, rounds: Sequence[Round], busy: Sequence[int] = ()) -> list[dict[str, Any]]:
    """The conversation in which the oracle answers every round with live tools."""
    toolbox = scene.toolbox(busy)
    oracle = Oracle(toolbox)
    messages: list[dict[str, Any]] = []
    for turn in rounds:
        messages.append({"role": "user", "content": turn.text})
        steps = oracle.solve(turn.goal)
        try:
            call: ToolCall = next(steps)
            while True:
                messages.append({"role": "assistant", "content": "", "tool_calls": [call.message]})
                result = toolbox.call(call.name, call.arguments)
                messages.append({"role": "tool", "content": result})
                call = steps.send(result)
        except StopIteration as finished:
            messages.append({"role": "assistant", "content": finished.value})
    return messages


@dataclass(frozen=True, slots=True)
class ToolTask:
    """A request to be solved with live tools.

    Attributes:
        scene: the world and the listed tools.
        rounds: what the user says, in order.
        answers: the oracle's answer to each round.
        num_calls: how many calls the oracle makes.
        busy: the calls that find the tool busy.
    """

    scene: Scene
    rounds: tuple[Round, ...]
    answers: tuple[str, ...]
    num_calls: int
    busy: tuple[int, ...] = ()


def make_task(scene: Scene, rounds: Sequence[Round], busy: Sequence[int] = ()) -> ToolTask:
    """The task of answering these rounds; the oracle says what is right."""
    messages = oracle_messages(scene, rounds, busy)
    answers = tuple(m["content"] for m in messages if m["role"] == "assistant" and not m.get("tool_calls"))
    num_calls = sum(m["role"] == "tool" for m in messages)
    return ToolTask(scene, tuple(rounds), answers, num_calls, tuple(busy))


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
        KeyError: no request takes so many calls.
    """
    split = HeldOut(held_out_names, held_out_phrases, held_out_tools)
    while True:
        sort = rng.choice(BY_CALLS[num_calls])
        scene, rounds = draw_scene(rng, sort, [], num_tools or rng.choice((2, 3, 4)), 0, split)
        task = make_task(scene, rounds)
        if task.num_calls == num_calls:
            return task
