"""A small world and the tools over it, made for a few requests."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.tasks.tool_goals import lookups, needs, subject_of
from data.tasks.tool_pool import Tool, draw_tools
from data.tasks.tool_requests import Asker, Impossible, Request, Round
from data.tasks.tool_sorts import MEASURED, SORTS
from data.tasks.toolbox import Passage, Toolbox, write_passages
from data.world.facts import World, draw_world
from data.world.schema import KINDS, RELATIONS

# What a fact is looked up with, and how often.
SOURCES = {("search",): 45, ("sql",): 35, ("search", "sql"): 20}
# How often a tool is listed that the first request does not need.
SPARE_TOOL = 0.3
MAX_DRAWS = 50


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What is drawn from the part that training never sees."""

    names: bool = False
    phrases: bool = False
    tools: bool = False


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
    def definitions(self) -> list[dict[str, Any]]:
        """The tools as a chat template takes them."""
        return [tool.definition for tool in self.tools]

    def toolbox(self, busy: Collection[int] = ()) -> Toolbox:
        """The tools, ready for one conversation."""
        return Toolbox(self.world, self.tools, self.passages, self.kinds, busy)


def draw_kinds(rng: random.Random, wanted: int, first: Sequence[str]) -> tuple[str, ...]:
    """Up to `wanted` kinds, each named by a relation of the one before; the first is one of `first`."""
    kinds = [rng.choice(first)]
    while len(kinds) < wanted:
        types = [r.type for r in RELATIONS[kinds[-1]].values() if r.is_entity and r.type not in kinds]
        if not types:
            break
        kinds.append(rng.choice(types))
    return tuple(kinds)


def draw_meanings(rng: random.Random, sort: str, most: int) -> list[str]:
    """What the listed tools can do: what a request of that sort needs, and sometimes more, up to `most`."""
    needs_all = SORTS[sort].needs
    needed = [meaning for meaning in needs_all if meaning != "facts"]
    spare = [meaning for meaning in ("facts", "calculate", "convert") if meaning not in needs_all]
    source = list(rng.choices(list(SOURCES), list(SOURCES.values()))[0])
    meanings = (source if "facts" in needs_all else []) + needed
    if len(meanings) > most:
        meanings.remove(rng.choice(source))
    for meaning in rng.sample(spare, len(spare)):
        added = source[:1] if meaning == "facts" else [meaning]
        if len(meanings) < most and rng.random() < SPARE_TOOL:
            meanings += added
    return meanings


def draw_scene(
    rng: random.Random,
    sort: str,
    more: Sequence[Mapping[str, int]],
    num_tools: int,
    amiss: float,
    held_out: HeldOut,
) -> tuple[Scene, list[Round]]:
    """A scene made for a request of that `sort`, and what the user says.

    Args:
        rng: where all draws come from.
        sort: the sort of the request that the tools are chosen for.
        more: for each further request, the weights of its sorts; it comes before or after the first.
        num_tools: how many tools are listed; more where `sort` needs them.
        amiss: how often a request finds no tool that serves it, and how often no passage states the fact.
        held_out: what comes from the part that training never sees.
    """
    while True:
        kinds = draw_kinds(rng, rng.choice((2, 2, 3)), MEASURED if sort.endswith("in_unit") else KINDS)
        world = draw_world(rng, dict.fromkeys(kinds, 2), held_out.names)
        asker = Asker(rng, world, kinds, held_out.phrases)
        try:
            requests = [_first(asker, sort)]
        except Impossible:
            continue
        break
    served = sort if rng.random() >= amiss else rng.choice(list(SORTS))
    meanings = draw_meanings(rng, served, max(num_tools, len(SORTS[served].needs)))
    tools = draw_tools(rng, meanings, max(0, num_tools - len(meanings)), kinds, held_out.tools)
    # Someone who is not named is not someone who was spoken of before, so that request stays the first.
    for weights in more:
        requests.append(_another(rng, asker, weights, set(meanings), requests, rng.random() >= amiss))
    if sort != "no_subject":
        rng.shuffle(requests)
    stated, hidden = set(), set()
    for request in requests:
        facts = [(subject_of(world, lookup), lookup.relation.name) for lookup in lookups(request[-1].goal)]
        if facts and rng.random() < amiss:
            hidden.add(facts.pop())
        stated.update(facts)
    passages = write_passages(rng, world, stated, hidden, held_out.phrases) if "search" in meanings else []
    rounds = [turn for request in requests for turn in request]
    return Scene(world, kinds, tuple(passages), tuple(tools)), rounds


def _first(asker: Asker, sort: str) -> Request:
    """A request of that sort; `Impossible` where several draws fail."""
    for _ in range(MAX_DRAWS):
        try:
            return SORTS[sort].ask(asker)
        except Impossible:
            continue
    raise Impossible


def _another(
    rng: random.Random,
    asker: Asker,
    weights: Mapping[str, int],
    meanings: set[str],
    before: Sequence[Request],
    served: bool,
) -> Request:
    """A request that is not one of those `before`, and that the tools serve, or do not serve."""
    goals = [request[-1].goal for request in before]
    for _ in range(MAX_DRAWS):
        try:
            sort = rng.choices(list(weights), list(weights.values()))[0]
            request = SORTS[sort].ask(asker)
        except Impossible:
            continue
        goal = request[-1].goal
        if goal not in goals and (needs(goal, meanings) <= meanings) == served and (served or len(request) == 1):
            return request
    return asker.impossible()
