"""Passkey retrieval: one sentence to remember somewhere in a text of any length, asked for at its end.

The rest of the text is passages about entities drawn for it, with numbers of their own, and stories.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from data.tasks.sample import Conversation
from data.tasks.talk.documents import story
from data.tasks.talk.pen import Pen
from data.tasks.talk.split import redraw
from data.world.facts import draw_entity
from data.world.names import is_held_out, new_name
from data.world.passages import passage
from data.world.schema import KINDS, RELATIONS

TOKENS_PER_WORD = 1.6  # of the filler, in the course's tokenizer, spaces and signs included

# By whether they are held out from training.
NEEDLES = {
    False: ("The pass key is {key}. Remember it.", "Remember the pass key: {key}.", "{key} is the pass key."),
    True: ("Do not forget that the pass key is {key}.", "Here is the pass key to remember: {key}."),
}
QUESTIONS = {
    False: ("What is the pass key?", "Tell me the pass key.", "Which pass key should you remember?"),
    True: ("What was the pass key again?", "Do you still know the pass key?"),
}
ANSWER = "The pass key is {key}."


def passkey(rng: Random, num_tokens: int, held_out: bool = False) -> Conversation:
    """A text of about `num_tokens` tokens with a pass key of five digits at any depth, and the question for it.

    Args:
        held_out: keys, names, phrases and stories that training never draws.
    """
    sentences: list[str] = []
    words = 0
    for sentence in filler(rng, held_out):
        words += len(sentence.split())
        if words * TOKENS_PER_WORD > num_tokens:
            break
        sentences.append(sentence)
    key = draw_key(rng, held_out)
    sentences.insert(rng.randint(0, len(sentences)), rng.choice(NEEDLES[held_out]).format(key=key))
    return Conversation(
        [
            {"role": "user", "content": f"{' '.join(sentences)}\n\n{rng.choice(QUESTIONS[held_out])}"},
            {"role": "assistant", "content": ANSWER.format(key=key)},
        ]
    )


def draw_key(rng: Random, held_out: bool) -> str:
    """Five digits; one key in ten is held out from training."""
    while is_held_out(key := str(rng.randrange(10_000, 100_000))) != held_out:
        pass
    return key


def filler(rng: Random, held_out: bool) -> Iterator[str]:
    """Sentences without end, of a passage or of a story in turn."""
    pen = Pen(rng, held_out)
    while True:
        kind = rng.choice(KINDS)
        entity = draw_entity(rng, kind, new_name(rng, kind, held_out), held_out)
        relations = pen.some(list(RELATIONS[kind]), 1, 4)
        yield from sentences_of(passage(rng, entity, relations, held_out))
        yield from sentences_of(redraw(lambda: story(pen), held_out))


def sentences_of(text: str) -> list[str]:
    """The sentences of `text`, each with its full stop."""
    return re.split(r"(?<=[.!?])\s+", text)
