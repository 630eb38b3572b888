"""Passkey retrieval: one sentence to remember somewhere in a text of any length, asked for at its end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from data.tasks.sample import Conversation
from data.tasks.talk import free_text
from data.tasks.talk.split import is_held_out

#: Tokens of the course's tokenizer a word of filler, spaces and signs included.
TOKENS_PER_WORD = 1.4

NEEDLE = "The pass key is {key}. Remember it."
QUESTION = "What is the pass key?"
ANSWER = "The pass key is {key}."


def passkey(rng: Random, num_tokens: int, held_out: bool = False) -> Conversation:
    """A text of about `num_tokens` tokens with a pass key of five digits at any depth, and the question for it.

    Args:
        held_out: keys and filler that training never draws.
    """
    sentences = []
    words = 0
    for sentence in filler(rng, held_out):
        sentences.append(sentence)
        words += len(sentence.split())
        if words * TOKENS_PER_WORD >= num_tokens:
            break
    key = draw_key(rng, held_out)
    sentences.insert(rng.randint(0, len(sentences)), NEEDLE.format(key=key))
    return Conversation(
        [
            {"role": "user", "content": f"{' '.join(sentences)}\n\n{QUESTION}"},
            {"role": "assistant", "content": ANSWER.format(key=key)},
        ]
    )


def draw_key(rng: Random, held_out: bool) -> str:
    """Five digits; one key in ten is held out from training."""
    while is_held_out(key := str(rng.randrange(10_000, 100_000))) != held_out:
        pass
    return key


def filler(rng: Random, held_out: bool) -> Iterator[str]:
    """Sentences of free text without end."""
    while True:
        yield from re.split(r"(?<=[.!?])\s+|\n+", free_text(rng, held_out).text)
