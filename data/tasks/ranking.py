"""Ranks passages by their words (BM25), so that a reader learns from what a real retriever returns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import log

#: The usual constants: how soon more of a word stops to count, and how much a long passage pays.
K1, B = 1.2, 0.75

_WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


def rank(query: str, passages: Sequence[str]) -> list[int]:
    """The indices of the passages by their BM25 score for the query, best first, ties in the given order."""
    counted = [Counter(words(passage)) for passage in passages]
    lengths = [sum(counts.values()) for counts in counted]
    mean = sum(lengths) / max(1, len(lengths))
    scores = [0.0] * len(passages)
    for word in set(words(query)):
        holders = [index for index, counts in enumerate(counted) if word in counts]
        weight = log(1 + (len(passages) - len(holders) + 0.5) / (len(holders) + 0.5))
        for index in holders:
            count = counted[index][word]
            scores[index] += weight * count * (K1 + 1) / (count + K1 * (1 - B + B * lengths[index] / mean))
    return sorted(range(len(passages)), key=lambda index: -scores[index])
