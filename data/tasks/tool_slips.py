"""Calls that go wrong by a name that is not quite copied, as a small model's do, and the right call after the error."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from data.tasks.tool_calls import ToolCall
from data.tasks.tool_pool import HELD_OUT_NAMES, open_part
from data.tasks.toolbox import Toolbox

Messages = list[dict[str, Any]]


def with_slip(rng: random.Random, messages: Sequence[dict[str, Any]], toolbox: Toolbox) -> tuple[Messages, list[int]]:
    """Put a wrong call and the tool's complaint before one of the right calls.

    Returns:
        The messages, and where the wrong call stands: it is to be read and not learned. None where nothing is called.
    """
    places = [place for place, message in enumerate(messages) if message.get("tool_calls")]
    if not places:
        return list(messages), []
    place = rng.choice(places)
    right = messages[place]["tool_calls"][0]["function"]
    wrong = slip(rng, ToolCall(right["name"], right["arguments"]), toolbox)
    slipped: Messages = [
        {"role": "assistant", "content": "", "tool_calls": [wrong.message]},
        {"role": "tool", "content": f"Error: {toolbox.problem(wrong.name, wrong.arguments)}"},
    ]
    return [*messages[:place], *slipped, *messages[place:]], [place]


def slip(rng: random.Random, call: ToolCall, toolbox: Toolbox) -> ToolCall:
    """The call with its tool's name, or an argument's, right to some letter and wrong from there on."""
    while True:
        name = rng.choice([call.name, *call.arguments])
        wrong = name[: rng.randrange(len(name))] + open_part(rng)
        arguments = {wrong if argument == name else argument: value for argument, value in call.arguments.items()}
        slipped = ToolCall(wrong if name == call.name else call.name, arguments)
        distinct = len(arguments) == len(call.arguments) and wrong not in HELD_OUT_NAMES
        if distinct and toolbox.problem(slipped.name, slipped.arguments):
            return slipped
