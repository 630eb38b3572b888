"""Calls that go wrong as a small model's do, by a name that is not quite copied or by a tool that does not fit, and the
right call after the error."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from data.tasks.tool_calls import ToolCall
from data.tasks.tool_pool import HELD_OUT_NAMES, open_part
from data.tasks.toolbox import OUT_OF_ORDER, Toolbox

Messages = list[dict[str, Any]]
WRONG_TOOL = 0.5  # share of the slips, where a tool is listed that does not fit
#: How often in a row a call goes wrong. A model that is never seen to leave off repeats it to the end.
REPEATS = {1: 6, 2: 3, 3: 1}


def with_slip(rng: random.Random, messages: Sequence[dict[str, Any]], toolbox: Toolbox) -> tuple[Messages, list[int]]:
    """Put a wrong call and the tool's complaint, once or several times over, before one of the right calls.

    Returns:
        The messages, and where the wrong calls stand: they are read and not learned. None where nothing is called.
    """
    places = [place for place, message in enumerate(messages) if message.get("tool_calls")]
    if not places:
        return list(messages), []
    place = rng.choice(places)
    right = messages[place]["tool_calls"][0]["function"]
    wrong, problem = slip(rng, ToolCall(right["name"], right["arguments"]), toolbox)
    slipped: Messages = [
        {"role": "assistant", "content": "", "tool_calls": [wrong.message]},
        {"role": "tool", "content": f"Error: {problem}"},
    ]
    (repeats,) = rng.choices(list(REPEATS), list(REPEATS.values()))
    return [*messages[:place], *slipped * repeats, *messages[place:]], [place + 2 * time for time in range(repeats)]


def slip(rng: random.Random, call: ToolCall, toolbox: Toolbox) -> tuple[ToolCall, str]:
    """A wrong call in the place of a right one, and what the tool says to it."""
    unfit = [name for name, tool in toolbox.tools.items() if tool.meaning == "other"]
    if unfit and rng.random() < WRONG_TOOL:
        return wrong_tool(rng, call, rng.choice(unfit), toolbox)
    return misspelt(rng, call, toolbox)


def wrong_tool(rng: random.Random, call: ToolCall, name: str, toolbox: Toolbox) -> tuple[ToolCall, str]:
    """What the call is about, handed to a tool that does something else, by its own argument or by the call's."""
    argument, value = next(iter(call.arguments.items()))
    arguments = [argument, *toolbox.tools[name].arguments.values()]
    wrong = ToolCall(name, {rng.choice(arguments): value})
    return wrong, toolbox.problem(wrong.name, wrong.arguments) or OUT_OF_ORDER


def misspelt(rng: random.Random, call: ToolCall, toolbox: Toolbox) -> tuple[ToolCall, str]:
    """The call with its tool's name, or an argument's, right to some letter and wrong from there on."""
    while True:
        name = rng.choice([call.name, *call.arguments])
        wrong = name[: rng.randrange(len(name))] + open_part(rng)
        arguments = {wrong if argument == name else argument: value for argument, value in call.arguments.items()}
        slipped = ToolCall(wrong if name == call.name else call.name, arguments)
        distinct = len(arguments) == len(call.arguments) and wrong not in HELD_OUT_NAMES
        if distinct and (problem := toolbox.problem(slipped.name, slipped.arguments)):
            return slipped, problem
