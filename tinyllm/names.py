"""Names that people type: which known one was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

CLOSE = 0.6  # of two names' letters that agree, as `difflib` counts them: its own bound for a close match


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`, whatever its capitals; None where none is close or several are.

    Example:
        >>> closest("blockalocator", ["BlockAllocator", "BlockTable"])
        'BlockAllocator'
    """
    likeness = {each: SequenceMatcher(None, name.casefold(), each.casefold()).ratio() for each in known}
    best = max(likeness.values(), default=0.0)
    nearest = [each for each, ratio in likeness.items() if ratio == best]
    return nearest[0] if best >= CLOSE and len(nearest) == 1 else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence to put behind an error about an unknown name; empty where no known name is close."""
    meant = closest(name, known)
    return f". Did you mean {meant}?" if meant else ""


def names_of_days(stems: Iterable[str]) -> list[str]:
    """What the days of a course may be called: in full, day1_paged_kv_cache, or by their first word, day1."""
    return [name for stem in stems for name in (stem, stem.split("_")[0])]
