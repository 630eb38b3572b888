"""What a model writes on the three kinds of conversation: for measures over its tokens."""

from __future__ import annotations

from random import Random

from data.evaluation import reading, tools
from data.evaluation.candidate import Candidate, Reply
from data.tasks.talk import talk


def talk_prompts(candidate: Candidate, count: int) -> list[list[int]]:
    """Held-out talk up to one of the assistant's turns."""
    prompts = []
    for place in range(count):
        rng = Random(f"evaluate talk {place}")
        messages = talk(rng, True).messages
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        prompts.append(candidate.prompt(messages[: rng.choice(turns)]))
    return prompts


def transcripts(candidate: Candidate, items: int) -> dict[str, list[Reply]]:
    """Greedy replies: `items` of reading and of talk, and those of half as many tool tasks of one to four calls."""
    questions = [*reading.draw(items - items // 5), *reading.draw(items // 5, answerable=False)]
    dialogues = [task.dialogue() for calls in tools.CALLS for task in tools.draw(max(1, items // 8), calls)]
    return {
        "reading": reading.answers(candidate, questions),
        "tools": tools.play(candidate, dialogues),
        "talk": candidate.replies(talk_prompts(candidate, items)),
    }
