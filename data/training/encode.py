"""One sample as token ids, with the weight of each token in the loss."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from random import Random

import numpy as np
from numpy.typing import NDArray

from data.tasks.sample import Conversation, Document, Sample
from tinyllm.model.tokenizer import Tokenizer

DOCUMENT_WEIGHT = 0.5  # free text is hard to predict: at full weight it would drown the answers
PROMPT_WEIGHT = 0.5
PROMPT_EVERY = 8  # one prompt token in so many is learned; the logits of the others are never computed


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one sample and how much each is learned.

    Attributes:
        ids: [T] token ids.
        weights: [T] weight of predicting this token from those before it; 1 for what the assistant says.
    """

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]


class Encoder:
    """Turns samples into ids and weights with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def end_of_text(self) -> list[int]:
        """The token that ends a document."""
        return self.tokenizer.encode("<|endoftext|>", allow_special=True)

    @cached_property
    def end_of_turn(self) -> int:
        """The token that ends a message."""
        return self.tokenizer.encode("<|im_end|>", allow_special=True)[0]

    @cached_property
    def assistant_head(self) -> list[int]:
        """What stands before everything that the assistant says."""
        return self.tokenizer.encode("<|im_start|>assistant\n", allow_special=True)

    def encode(self, sample: Sample, rng: Random, max_length: int) -> Encoded:
        """Ids and weights of a sample, cut at `max_length` tokens."""
        if isinstance(sample, Document):
            ids = np.array(self.tokenizer.encode(sample.text) + self.end_of_text)
            weights = np.full(len(ids), DOCUMENT_WEIGHT, dtype=np.float32)
        else:
            ids, spoken = self.conversation(sample)
            weights = np.zeros(len(ids), dtype=np.float32)
            weights[rng.randrange(PROMPT_EVERY) :: PROMPT_EVERY] = PROMPT_WEIGHT
            for start, end in spoken:
                weights[start:end] = 1.0
        weights[0] = 0.0  # nothing comes before it
        return Encoded(ids[:max_length], weights[:max_length])

    def conversation(self, sample: Conversation) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
        """Token ids, and from where to where the assistant says what is to be learned, end token included."""
        tokens = self.tokenizer.apply_chat_template(
            list(sample.messages), tools=list(sample.tools) or None, add_generation_prompt=False
        )
        head = self.assistant_head
        ids = np.array(tokens)
        starts = [
            start for start in np.flatnonzero(ids == head[0]).tolist() if tokens[start : start + len(head)] == head
        ]
        places = [place for place, message in enumerate(sample.messages) if message["role"] == "assistant"]
        spoken = []
        for place, start in zip(places, starts, strict=True):
            begin = start + len(head)
            if place not in sample.unlearned:
                spoken.append((begin, tokens.index(self.end_of_turn, begin) + 1))
        return ids, spoken
