"""Grounded answers: is the value right, is the right passage cited, and does the model read at all?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from data.evaluation.candidate import Candidate, Reply
from data.evaluation.score import Rate, Rates, judge
from data.tasks.reading import ReadingTask, draw_reading, prompt

PASSAGES = 4  # of the headline row
OTHER_COUNTS = (1, 2, 6, 8)
TEMPERATURE = 0.7
#: Row -> what of it is held out, as (names, phrases).
AXES = {
    "only names held out": (True, False),
    "only phrases held out": (False, True),
    "names and phrases as in training": (False, False),
}
MAIN, NO_ANSWER, NO_PASSAGES = "4 passages", "no passage answers", "4 passages, not shown"


def draw(
    count: int, *, passages: int = PASSAGES, names: bool = True, phrases: bool = True, answerable: bool = True
) -> list[ReadingTask]:
    """Tasks that depend on their place and the settings only; half of the contexts are what a retriever found.

    Args:
        count: how many; the first ones of more are the same.
        passages: in each task.
        names: held out, or as in training.
        phrases: likewise.
        answerable: whether a passage gives the answer. Where none does, the retriever may have missed it.
    """
    tasks = []
    for place in range(count):
        rng = Random(f"evaluate reading {passages} {names} {phrases} {answerable} {place}")
        while True:
            task = draw_reading(
                rng,
                num_passages=passages,
                held_out_names=names,
                held_out_phrases=phrases,
                answerable=answerable or rng.random() < 0.5,
                from_retriever=place % 2 == 1,
            )
            if (task.value is not None) == answerable:
                break
        tasks.append(task)
    return tasks


def rates(tasks: Sequence[ReadingTask], replies: Sequence[str]) -> Rates:
    """How often the replies are right, in whole and in parts."""
    judged = [judge(text, task.value, task.label) for task, text in zip(tasks, replies, strict=True)]
    result = {"abstained": Rate.of(one.abstained for one in judged)}
    if any(task.value is not None for task in tasks):
        result |= {
            "right": Rate.of(one.right for one in judged),
            "value": Rate.of(one.value for one in judged),
            "citation": Rate.of(one.citation for one in judged),
            "word for word": Rate.of(text == task.answer for task, text in zip(tasks, replies, strict=True)),
        }
    return result


def answers(candidate: Candidate, tasks: Sequence[ReadingTask], temperature: float = 0.0) -> list[Reply]:
    """What the model says to each task."""
    return candidate.ask([prompt(task) for task in tasks], temperature)


def read(candidate: Candidate, tasks: Sequence[ReadingTask], temperature: float = 0.0) -> Rates:
    """Let the model answer, and judge it."""
    return rates(tasks, [reply.text for reply in answers(candidate, tasks, temperature)])


def without_passages(candidate: Candidate, tasks: Sequence[ReadingTask]) -> Rates:
    """The questions alone: what a model gets right that reads nothing."""
    replies = candidate.ask([prompt(task, with_passages=False) for task in tasks])
    judged = [judge(reply.text, task.value, 0) for task, reply in zip(tasks, replies, strict=True)]
    return {"value": Rate.of(one.value for one in judged), "abstained": Rate.of(one.abstained for one in judged)}


def swapped(candidate: Candidate, tasks: Sequence[ReadingTask]) -> Rates:
    """The same tasks with another value in the passage: does the answer follow it?"""
    changed = [task.swapped(Random(f"evaluate swapped {place}"), held_out=True) for place, task in enumerate(tasks)]
    return read(candidate, changed)


def rows(candidate: Candidate, items: int) -> Iterator[tuple[str, Callable[[], Rates]]]:
    """Each row's name, and what measures it."""
    main = draw(items)
    yield MAIN, lambda: read(candidate, main)
    yield NO_PASSAGES, lambda: without_passages(candidate, main)
    yield "4 passages, value swapped", lambda: swapped(candidate, main)
    yield f"4 passages, temperature {TEMPERATURE}", lambda: read(candidate, main, TEMPERATURE)
    yield NO_ANSWER, lambda: read(candidate, draw(items, answerable=False))
    for count in OTHER_COUNTS:
        name = f"{count} passage{'s' * (count > 1)}"
        yield name, lambda count=count: read(candidate, draw(items, passages=count))  # type: ignore[misc]
    for name, (names, phrases) in AXES.items():
        tasks = draw(items, names=names, phrases=phrases)
        yield f"4 passages, {name}", lambda tasks=tasks: read(candidate, tasks)  # type: ignore[misc]
