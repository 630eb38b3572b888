"""Calls that go wrong as a small model's do, and what is right after the error.

A name is not quite copied, or a tool is called that does not fit.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from data.tasks.tool_calls import ToolCall
from data.tasks.tool_goals import SAY
from data.tasks.tool_pool import HELD_OUT_NAMES, open_part
from data.tasks.toolbox import Toolbox

Messages = list[dict[str, Any]]
WRONG_TOOL = 0.5  # share of the slips, where a tool is listed that does not fit
#: How often in a row a call goes wrong. A model that is never seen to leave off repeats it to the end.
REPEATS = {1: 6, 2: 3, 3: 1}
#: What a request may be about: names, numbers and sums.
THINGS = re.compile(r"[A-Z]\w+(?: \w+)?|\d[\d +*/()-]*")


def with_slip(rng: random.Random, messages: Sequence[dict[str, Any]], toolbox: Toolbox) -> tuple[Messages, list[int]]:
    """Put a wrong call and the tool's complaint, once or several times over, before a call or where none is to be made.

    Returns:
        The messages, and where the wrong calls stand: they are read and not learned. None where nothing can go wrong.
    """
    places = [
        place
        for place, message in enumerate(messages)
        if message.get("tool_calls") or message["content"] == SAY["impossible"]
    ]
    wrong = None
    if places:
        place = rng.choice(places)
        wrong = slip(rng, messages[place], messages[place - 1]["content"], toolbox)
    if wrong is None:
        return list(messages), []
    slipped: Messages = [
        {"role": "assistant", "content": "", "tool_calls": [wrong.message]},
        {"role": "tool", "content": toolbox.call(wrong.name, wrong.arguments)},
    ]
    (repeats,) = rng.choices(list(REPEATS), list(REPEATS.values()))
    return [*messages[:place], *slipped * repeats, *messages[place:]], [place + 2 * time for time in range(repeats)]


def slip(rng: random.Random, right: dict[str, Any], asked: str, toolbox: Toolbox) -> ToolCall | None:
    """A wrong call in the place of the right message, which answers what is `asked`; None where there is none."""
    if not right.get("tool_calls"):
        return wrong_tool(rng, rng.choice(THINGS.findall(asked) or [asked]), list(toolbox.tools), toolbox)
    function = right["tool_calls"][0]["function"]
    call = ToolCall(function["name"], function["arguments"])
    if rng.random() < WRONG_TOOL:
        argument, value = next(iter(call.arguments.items()))
        names = [name for name in toolbox.tools if name != call.name]
        if wrong := wrong_tool(rng, value, names, toolbox, argument):
            return wrong
    return misspelt(rng, call, toolbox)


def wrong_tool(
    rng: random.Random, value: Any, names: Sequence[str], toolbox: Toolbox, *arguments: str
) -> ToolCall | None:
    """A call that hands a value to one of these tools, by its own argument or one of `arguments`, and fails."""
    for name in rng.sample(names, len(names)):
        argument = rng.choice([*toolbox.tools[name].arguments.values(), *arguments])
        if toolbox.call(name, {argument: value}).startswith("Error: "):
            return ToolCall(name, {argument: value})
    return None


def misspelt(rng: random.Random, call: ToolCall, toolbox: Toolbox) -> ToolCall:
    """The call with its tool's name, or an argument's, right to some letter and wrong from there on."""
    while True:
        name = rng.choice([call.name, *call.arguments])
        wrong = name[: rng.randrange(len(name))] + open_part(rng)
        arguments = {wrong if argument == name else argument: value for argument, value in call.arguments.items()}
        slipped = ToolCall(wrong if name == call.name else call.name, arguments)
        distinct = len(arguments) == len(call.arguments) and wrong not in HELD_OUT_NAMES
        if distinct and toolbox.problem(slipped.name, slipped.arguments):
            return slipped
