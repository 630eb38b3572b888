"""What of the talk is held out from training.

- Free text: one in ten openings, an opening being the first two sentences (or lines) with all that is filled in.
  The sentences after it are drawn freely, so they may occur in training one by one; the text as a whole does not.
- Questions: one in ten pairs of a phrase and what it asks about ("Explain {term}" with "a token"). The first phrase of
  every list is always trained, so everything can be asked about in one way at least.
- Requests that name nothing ("Tell me a story") are trained; the story that answers is held out as free text is.
- Fixed texts and facts (recipes, lists, capitals, words of the course) are all trained.
- Names and phrases in questions that answer themselves: see `stated.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from data.world.names import is_held_out


def opening(text: str) -> str:
    """The first two sentences or lines of `text`."""
    return " ".join(re.split(r"(?<=[.!?])\s+|\n+", text)[:2])


def redraw(write: Callable[[], str], held_out: bool) -> str:
    """Call `write` until its text is on the asked side of the split."""
    while is_held_out(opening(text := write())) != held_out:
        pass
    return text
