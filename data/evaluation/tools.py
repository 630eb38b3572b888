"""Tool tasks played with live tools, many dialogues in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from data.evaluation.candidate import Candidate, Reply
from data.evaluation.score import Rate, Rates
from data.tasks.tool_dialogue import Dialogue
from data.tasks.tool_goals import ASKED_BACK, SAY
from data.tasks.tool_scene import HeldOut, draw_scene
from data.tasks.tool_sorts import taking
from data.tasks.toolbox import BUSY, NO_RESULTS, NO_ROWS
from data.tasks.tools import ToolTask, draw_tool_task, make_task, play_oracle

CALLS = (1, 2, 3, 4)
CONSTRAINED = "tools, constrained"
TEMPERATURE = 0.7
ALL = HeldOut(True, True, True)
#: Row -> what of it is held out; each with tasks of two calls.
AXES = {
    "only names held out": HeldOut(names=True),
    "only phrases held out": HeldOut(phrases=True),
    "only tools held out": HeldOut(tools=True),
    "all as in training": HeldOut(),
}


Messages = Sequence[dict[str, Any]]


def oracle_messages(task: ToolTask) -> Messages:
    """The conversation in which the oracle solves the task."""
    return play_oracle(task.scene, task.rounds, task.busy)[0].messages


def first_call(messages: Messages) -> str:
    """The name of the tool that is called first, or nothing where there is no call."""
    calls = (call["function"]["name"] for message in messages for call in message.get("tool_calls", ()))
    return next(calls, "")


def draw(count: int, num_calls: int, held_out: HeldOut = ALL) -> list[ToolTask]:
    """Tasks of so many calls that depend on their place and the settings only."""
    split = {f"held_out_{axis}": getattr(held_out, axis) for axis in ("names", "phrases", "tools")}
    return [
        draw_tool_task(Random(f"evaluate tools {num_calls} {held_out} {place}"), num_calls=num_calls, **split)
        for place in range(count)
    ]


def no_tool_fits(task: ToolTask) -> bool:
    """What is asked for is done by none of the listed tools."""
    return task.answers[-1].text == SAY["impossible"]


def argument_missing(task: ToolTask) -> bool:
    """The user leaves out what a call needs, and is asked back."""
    return len(task.rounds) == 2


def busy_once(task: ToolTask) -> bool:
    """A tool answers that it is busy, and is called again."""
    return any(message["content"] == BUSY for message in oracle_messages(task))


def unit_corrected(task: ToolTask) -> bool:
    """A tool does not know a misspelt unit and suggests another, with which it is called again."""
    return any(ASKED_BACK in message["content"] for message in oracle_messages(task))


def search_empty(task: ToolTask) -> bool:
    """A search or a query finds nothing: another is tried, or the user is told."""
    messages = oracle_messages(task)
    return any(message["role"] == "tool" and message["content"] in (NO_RESULTS, NO_ROWS) for message in messages)


def not_told(task: ToolTask) -> bool:
    """What is found does not state the fact."""
    return task.answers[-1].text.endswith("is not given.")


ONE_OR_TWO = (*taking(1), *taking(2))
#: Row -> the sorts of request, how much goes amiss, whether the first call finds the tool busy, and what must hold.
SPECIAL: dict[str, tuple[tuple[str, ...], float, bool, Callable[[ToolTask], bool]]] = {
    "no tool fits": (("impossible", *ONE_OR_TWO), 1.0, False, no_tool_fits),
    "an argument is missing": (("no_subject", "no_unit", "no_sum"), 0.0, False, argument_missing),
    "the tool is busy once": (ONE_OR_TWO, 0.0, True, busy_once),
    "a unit is misspelt": (("misspelt_unit",), 0.0, False, unit_corrected),
    "the search finds nothing": (("misspelt",), 0.0, False, search_empty),
    "what is found does not tell": (("fact",), 1.0, False, not_told),
}


def draw_special(count: int, row: str) -> list[ToolTask]:
    """Tasks of one of the `SPECIAL` rows."""
    sorts, amiss, busy, fits = SPECIAL[row]
    tasks = []
    for place in range(count):
        rng = Random(f"evaluate tools {row} {place}")
        sort = sorts[place % len(sorts)]
        while True:
            scene, rounds = draw_scene(rng, sort, [], rng.choice((2, 3, 4)), amiss, ALL)
            task = make_task(scene, rounds, (0,) if busy else ())
            if fits(task):
                break
        tasks.append(task)
    return tasks


def play(
    candidate: Candidate, dialogues: Sequence[Dialogue], temperature: float = 0.0, constrained: bool = False
) -> list[Reply]:
    """Play the dialogues to their end, all that wait for the model in one batch; returns all it wrote.

    One that grows longer than the model can read is given up. With `constrained`, calls are held to the schemas of the
    listed tools while they are written.
    """
    written: list[Reply] = []
    masks = [candidate.mask(dialogue.tools) if constrained else None for dialogue in dialogues]
    while True:
        prompts: dict[int, list[int]] = {}
        for place, dialogue in enumerate(dialogues):
            if (messages := dialogue.next_prompt) is not None:
                prompts[place] = candidate.prompt(messages, dialogue.tools)
                if len(prompts[place]) > candidate.longest_prompt:
                    dialogue.done = True
                    del prompts[place]
        if not prompts:
            return written
        replies = candidate.replies(list(prompts.values()), temperature, masks=[masks[place] for place in prompts])
        for place, reply in zip(prompts, replies, strict=True):
            dialogues[place].feed(reply.text)
        written += replies


def valid_calls(dialogues: Sequence[Dialogue]) -> Rate:
    """How many of all calls were valid; a dialogue's valid ones count first, as which they were is not kept."""
    return Rate.of(call < dialogue.num_valid for dialogue in dialogues for call in range(dialogue.num_calls))


def rates(tasks: Sequence[ToolTask], dialogues: Sequence[Dialogue]) -> Rates:
    """How the dialogues went: tasks solved, calls valid, and the right tool called first."""
    outcomes = [task.outcome(dialogue) for task, dialogue in zip(tasks, dialogues, strict=True)]
    return {
        "solved": Rate.of(outcome.solved for outcome in outcomes),
        "valid calls": valid_calls(dialogues),
        "first tool": Rate.of(
            first_call(oracle_messages(task)) == first_call(dialogue.messages)
            for task, dialogue in zip(tasks, dialogues, strict=True)
        ),
    }


def solve(
    candidate: Candidate, tasks: Sequence[ToolTask], temperature: float = 0.0, constrained: bool = False
) -> Rates:
    """Let the model work on the tasks, and judge it; `constrained` as in `play`."""
    dialogues = [task.dialogue() for task in tasks]
    play(candidate, dialogues, temperature, constrained)
    return rates(tasks, dialogues)


def calls_row(num_calls: int) -> str:
    """The row of the tasks that take so many calls."""
    return f"{num_calls} call{'s' * (num_calls > 1)}"


def rows(candidate: Candidate, items: int) -> Iterator[tuple[str, Callable[[], Rates]]]:
    """Each row's name, and what measures it."""
    for num_calls in CALLS:
        yield calls_row(num_calls), lambda n=num_calls: solve(candidate, draw(items, n))  # type: ignore[misc]
    yield f"2 calls, temperature {TEMPERATURE}", lambda: solve(candidate, draw(items, 2), TEMPERATURE)
    for name, split in AXES.items():
        yield f"2 calls, {name}", lambda split=split: solve(candidate, draw(items, 2, split))  # type: ignore[misc]
    for name in SPECIAL:
        yield name, lambda name=name: solve(candidate, draw_special(items, name))  # type: ignore[misc]


def constrained_rows(candidate: Candidate, items: int) -> Iterator[tuple[str, Callable[[], Rates]]]:
    """The first rows again, with calls held to the schemas of the listed tools."""
    for num_calls in CALLS:
        yield calls_row(num_calls), lambda n=num_calls: solve(candidate, draw(items, n), constrained=True)  # type: ignore[misc]
