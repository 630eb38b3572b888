"""Tokens to text, a piece at a time, in whole characters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

#: What a decoder writes for bytes that are no character, and so for the first bytes of one that goes on.
REPLACEMENT = "\ufffd"


class Detokenizer:
    """Gives out the text of a growing list of tokens. The pieces add up to the text of all tokens decoded at once.

    A token may hold a part of a character, which is kept back until the rest comes. A token's text may also depend on
    the token before it (a blank between words), so each piece is decoded behind the piece before and cut from it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        """`decode` gives the text of any list of token ids."""
        self._decode = decode
        self._window: list[int] = []  # the tokens of the last piece, then those that have not been given out
        self._num_given = 0  # how many of the window have been

    def add(self, token_ids: Iterable[int]) -> str:
        """The text that these tokens complete; it may be empty."""
        self._window += token_ids
        return self._piece(final=False)

    def finish(self) -> str:
        """What is still kept back, now that no more tokens come; half a character shows as U+FFFD."""
        return self._piece(final=True)

    def _piece(self, final: bool) -> str:
        if self._num_given == len(self._window):
            return ""
        given = self._decode(self._window[: self._num_given])
        text = self._decode(self._window)
        if len(text) == len(given) or (text.endswith(REPLACEMENT) and not final):
            return ""
        self._window = self._window[self._num_given :]
        self._num_given = len(self._window)
        return text[len(given) :]
