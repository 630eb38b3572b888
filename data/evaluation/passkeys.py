"""Passkey retrieval by length of the text and by where in it the key stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from random import Random

from data.evaluation.candidate import Candidate
from data.evaluation.score import Rate, Rates
from data.tasks.passkey import passkey

LENGTHS = (256, 512, 1024, 1900)  # tokens of the prompt, at most
PARTS = ("first", "second", "third", "last")  # quarters of the text
_KEY = re.compile(r"\d{5}")


def draw(candidate: Candidate, count: int, length: int) -> list[tuple[str, str]]:
    """Texts with their question, and the key of each; a prompt has `length` tokens or up to a tenth less.

    The keys stand in the first quarter, the second, the third and the last in turn.
    """
    items: list[tuple[str, str]] = []
    for place in range(count):
        rng = Random(f"evaluate passkey {length} {place}")
        wanted = float(length)
        while True:
            said, answer = (message["content"] for message in passkey(rng, int(wanted), held_out=True).messages)
            num_tokens = len(candidate.prompt([{"role": "user", "content": said}]))
            if not 0.9 * length <= num_tokens <= length:
                wanted *= 0.95 * length / num_tokens  # how many tokens a word has differs from text to text
                continue
            found = _KEY.search(answer)
            assert found is not None
            key = found.group()
            if 4 * said.index(key) // len(said) == place % 4:
                items.append((said, key))
                break
    return items


def retrieve(candidate: Candidate, count: int, length: int) -> Rates:
    """Ask for the keys of texts of one length."""
    items = draw(candidate, count, length)
    replies = candidate.ask([said for said, _ in items])
    hits = [_KEY.findall(reply.text) == [key] for (_, key), reply in zip(items, replies, strict=True)]
    by_depth = {f"in the {part} quarter": Rate.of(hits[quarter::4]) for quarter, part in enumerate(PARTS)}
    return {"right": Rate.of(hits)} | by_depth


def rows(candidate: Candidate, items: int) -> Iterator[tuple[str, Callable[[], Rates]]]:
    """Each row's name, and what measures it."""
    for length in LENGTHS:
        yield f"{length} tokens", lambda length=length: retrieve(candidate, items, length)  # type: ignore[misc]
