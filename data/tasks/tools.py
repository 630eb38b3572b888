"""Tool conversations: what a user asks, the calls that an oracle makes of the real tools, and the answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.tasks.sample import Conversation
from data.tasks.tool_calls import ToolCall
from data.tasks.tool_goals import Goal, Lookup, Oracle, lookups, needs, source_of
from data.tasks.tool_pool import MEANINGS, Tool, draw_tools
from data.tasks.tool_requests import BY_CALLS, Asker, Impossible, Request, Round
from data.tasks.toolbox import Passage, Toolbox, write_passages
from data.world.facts import World, draw_world
from data.world.schema import KINDS, RELATIONS

#: Sort of request -> how often it is drawn at the end of the curriculum.
WEIGHTS = {
    "fact": 10, "arithmetic": 4, "conversion": 4,
    "hop": 12, "fact_in_unit": 8,
    "two_hops": 9, "two_facts": 10,
    "hop_and_fact": 8, "total_in_unit": 6,
    "misspelt": 4, "misspelt_unit": 2, "stated": 4, "small_talk": 2, "impossible": 2,
    "no_subject": 3, "no_unit": 2, "no_sum": 1,
}  # fmt: skip
EASY = BY_CALLS[1]
# How often a request may be one that no listed tool serves, or ask for what no passage states, and a tool is busy.
NO_TOOL, NOT_GIVEN, BUSY_RATE = 0.06, 0.06, 0.06
MAX_DRAWS = 200


@dataclass(frozen=True, slots=True)
class Scene:
    """One small world and the tools over it.

    Attributes:
        world: the entities.
        kinds: those that are asked about, and have SQL tables.
        passages: what search finds.
        tools: what the prompt lists.
    """

    world: World
    kinds: tuple[str, ...]
    passages: tuple[Passage, ...]
    tools: tuple[Tool, ...]

    @property
    def meanings(self) -> set[str]:
        """What the listed tools can do."""
        return {tool.meaning for tool in self.tools if tool.meaning != "other"}

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """The tools as a chat template takes them."""
        return [tool.definition for tool in self.tools]

    def toolbox(self, busy: Sequence[int] = ()) -> Toolbox:
        """The tools, ready for one conversation."""
        return Toolbox(self.world, self.tools, self.passages, self.kinds, busy)

    def given(self, goal: Goal) -> bool:
        """Whether the tools can tell everything that the goal looks up."""
        for lookup in lookups(goal):
            name = self.name(lookup.subject)
            stated = any(p.title == name and lookup.relation.name in p.relations for p in self.passages)
            if source_of(lookup.relation, self.meanings) == "search" and not stated:
                return False
        return True

    def name(self, subject: str | Lookup) -> str:
        """The entity that a lookup is about."""
        if isinstance(subject, str):
            return subject
        return str(self.world.entities[self.name(subject.subject)].facts[subject.relation.name])


def draw_kinds(rng: random.Random, wanted: int) -> tuple[str, ...]:
    """Up to `wanted` kinds, each named by a relation of the one before."""
    kinds = [rng.choice(KINDS)]
    while len(kinds) < wanted:
        types = [r.type for r in RELATIONS[kinds[-1]].values() if r.is_entity and r.type not in kinds]
        if not types:
            break
        kinds.append(rng.choice(types))
    return tuple(kinds)


def draw_scene(
    rng: random.Random,
    meanings: Sequence[str],
    num_tools: int,
    kinds: tuple[str, ...],
    held_out_names: bool = False,
    held_out_phrases: bool = False,
    held_out_tools: bool = False,
) -> Scene:
    """A world in which tools of these meanings, and others up to `num_tools`, are listed."""
    world = draw_world(rng, dict.fromkeys(kinds, 2), held_out_names)
    passages = write_passages(rng, world, held_out_phrases) if "search" in meanings else []
    tools = draw_tools(rng, meanings, max(0, num_tools - len(meanings)), kinds, held_out_tools)
    return Scene(world, kinds, tuple(passages), tuple(tools))


def draw_meanings(rng: random.Random, most: int) -> list[str]:
    """What the tools of a training prompt can do: a source of facts, mostly, and the two that reckon."""
    source = rng.choices((["search"], ["sql"], ["search", "sql"], []), (42, 32, 16, 10))[0]
    reckon = rng.choices((["calculate"], ["convert"], ["calculate", "convert"], []), (30, 30, 20, 20))[0]
    return (source + reckon)[:most]


def tool_conversation(rng: random.Random, level: float, held_out: bool = False) -> Conversation:
    """A conversation of one to four requests; at `level` 0 each takes one call, at 1 there is everything."""
    hard = rng.random() < level
    num_tools = rng.choices((2, 3, 4, 5), (35, 40, 20, 5))[0] if hard else 2
    kinds = draw_kinds(rng, rng.choice((2, 2, 3)) if hard else 2)
    scene = draw_scene(rng, draw_meanings(rng, num_tools), num_tools, kinds, held_out, held_out, held_out)
    asker = Asker(rng, scene.world, kinds, held_out)
    rounds: list[Round] = []
    for number in range(rng.choice((1, 2, 2, 3)) if hard else rng.choice((2, 3, 4))):
        # "The town" without a name is what was spoken of before, so only the first request can lack it.
        sorts = {sort: weight for sort, weight in WEIGHTS.items() if sort != "no_subject" or not number}
        rounds += draw_request(rng, scene, asker, sorts if hard else dict.fromkeys(EASY, 1))
    busy = [rng.randrange(4)] if hard and rng.random() < BUSY_RATE else []
    return Conversation(oracle_messages(scene, rounds, busy), scene.definitions)


def draw_request(rng: random.Random, scene: Scene, asker: Asker, weights: Mapping[str, int]) -> Request:
    """A request that the tools serve, or now and then one that they do not; `weights` says how often each sort is."""
    sort = ""
    misfit = rng.random() < NO_TOOL and len(weights) > len(EASY)
    any_fact = rng.random() < NOT_GIVEN
    for _ in range(MAX_DRAWS):
        sort = sort or rng.choices(list(weights), list(weights.values()))[0]
        try:
            request = asker.request(sort)
        except Impossible:
            sort = ""
            continue
        goal = request[-1].goal
        if needs(goal, scene.meanings) <= scene.meanings:
            if any_fact or sort == "misspelt" or scene.given(goal):
                return request
        elif misfit and len(request) == 1:
            return request
        else:
            sort = ""
    return asker.request("impossible")


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
    sort = rng.choice(BY_CALLS[num_calls])
    while True:
        kinds = draw_kinds(rng, rng.choice((2, 3)))
        listed = num_tools or rng.choice((2, 3, 4))
        meanings = draw_meanings(rng, min(listed, len(MEANINGS)))
        scene = draw_scene(rng, meanings, listed, kinds, held_out_names, held_out_phrases, held_out_tools)
        asker = Asker(rng, scene.world, kinds, held_out_phrases)
        for _ in range(20):
            try:
                request = asker.request(sort)
            except Impossible:
                continue
            goal = request[-1].goal
            if needs(goal, scene.meanings) <= scene.meanings and scene.given(goal):
                task = make_task(scene, request)
                if task.num_calls == num_calls:
                    return task
