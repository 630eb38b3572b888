"""Dialogue and free text: what an assistant is asked every day, and stories, letters, recipes and other plain English.

Their phrases and fixed facts stand in the `.toml` files of this folder. What is held out is said in `split.py`.
"""

from __future__ import annotations

from random import Random

from data.tasks.sample import Conversation, Document
from data.tasks.talk.conversations import conversation
from data.tasks.talk.documents import document
from data.tasks.talk.pen import Pen


def talk(rng: Random, held_out: bool = False) -> Conversation:
    """One to five turns with an assistant; `held_out` draws what training never draws, and the reverse."""
    return Conversation(conversation(Pen(rng, held_out)))


def free_text(rng: Random, held_out: bool = False) -> Document:
    """A short document; `held_out` draws what training never draws, and the reverse."""
    return Document(document(Pen(rng, held_out)))
