"""What the models read, and how often, from the first step to the last."""

from __future__ import annotations

from random import Random

from data.tasks.copying import copying
from data.tasks.passkey import passkey
from data.tasks.reading import reading
from data.tasks.sample import Document, Sample
from data.tasks.talk import free_text, talk
from data.tasks.tools import tool_conversation
from data.world.facts import draw_world
from data.world.passages import article
from data.world.schema import KINDS

#: Share of the samples of each task once the warm-up is over; one with tools is twice as long as one of reading.
SHARES = {
    "reading": 0.30,
    "tools": 0.40,
    "talk": 0.13,
    "free text": 0.05,
    "article": 0.03,
    "copying": 0.05,
    "passkey": 0.04,
}
COPYING_AT_FIRST, COPYING_ENDS = 0.6, 0.25  # share of copying at the start; the progress at which it is down to its own
FULL_DIFFICULTY = 0.35  # the progress from which on tasks are as hard as they get
LONGEST_PASSKEY = 1_900  # tokens


def draw(rng: Random, progress: float) -> Sample:
    """One training sample at `progress` (0 to 1) of the run: much copying first, easy tasks before hard ones."""
    warm_up = max(0.0, 1.0 - progress / COPYING_ENDS)
    if rng.random() < COPYING_AT_FIRST * warm_up:
        return copying(rng, 1 + int(rng.random() * 3 * min(1.0, 0.4 + progress / COPYING_ENDS)))
    task = rng.choices(list(SHARES), list(SHARES.values()))[0]
    return sample_of(task, rng, min(1.0, 0.15 + progress / FULL_DIFFICULTY))


def sample_of(task: str, rng: Random, level: float = 1.0, held_out: bool = False) -> Sample:
    """A sample of one task.

    Args:
        task: a key of `SHARES`.
        level: difficulty, 0 to 1.
        held_out: names, phrases and tools that training never draws; copying has none.
    """
    if task == "reading":
        return reading(rng, held_out, level=level)
    if task == "tools":
        return tool_conversation(rng, level, held_out)
    if task == "talk":
        return talk(rng, held_out)
    if task == "free text":
        return free_text(rng, held_out)
    if task == "article":
        return world_article(rng, held_out)
    if task == "copying":
        return copying(rng, rng.randint(1, 3))
    return passkey(rng, int(64 * (LONGEST_PASSKEY / 64) ** (rng.random() * level)), held_out)


def world_article(rng: Random, held_out: bool = False) -> Document:
    """An article on something in a world of its own."""
    world = draw_world(rng, {rng.choice(KINDS): 1}, held_out)
    return Document(article(rng, world, rng.choice(list(world.entities.values())), held_out))
