"""Turns generated documents and conversations into rows of tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator

import torch
from bpe import END_OF_TEXT
from conversations import conversation
from documents import document
from torch import Tensor
from world import Pen

from tinyllm.model.tokenizer import Tokenizer

Sample = str | list[dict[str, str]]  # a document, or the messages of a conversation

SHARE_OF_CONVERSATIONS = 0.6


def samples(seed: int, seen: set[str] | None = None) -> Iterator[Sample]:
    """An endless stream, the same for the same seed; what it gave is noted in `seen`."""
    pen = Pen(seed)
    while True:
        sample: Sample = conversation(pen) if pen.rng.random() < SHARE_OF_CONVERSATIONS else document(pen)
        if seen is not None:
            seen.add(json.dumps(sample))
        yield sample


def unseen(seed: int, seen: set[str]) -> Iterator[Sample]:
    """An endless stream of samples that are not among the `seen`."""
    return (sample for sample in samples(seed) if json.dumps(sample) not in seen)


def texts_of(sample: Sample) -> list[str]:
    """The ordinary text in a sample."""
    return [sample] if isinstance(sample, str) else [message["content"] for message in sample]


def encode(sample: Sample, tokenizer: Tokenizer) -> list[int]:
    """Token ids of a sample, with the token that ends a text."""
    if isinstance(sample, str):
        ids = tokenizer.encode(sample)
    else:
        ids = tokenizer.apply_chat_template(sample, add_generation_prompt=False)
    return ids + tokenizer.encode(END_OF_TEXT, allow_special=True)


def rows(stream: Iterator[Sample], tokenizer: Tokenizer, length: int) -> Iterator[Tensor]:
    """Rows of `length` token ids: samples one after another, each row beginning with a new one, the last one cut."""
    row: list[int] = []
    for sample in stream:
        row += encode(sample, tokenizer)
        if len(row) >= length:
            yield torch.tensor(row[:length])
            row = []
