"""Tokens to text, a piece at a time, in whole characters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

#: What a decoder writes for bytes that are no character, and so for the first bytes of one that goes on.
REPLACEMENT = "\ufffd"
#: More tokens than this never wait for the rest of a character, which has four bytes at most: they are no text.
MOST_WAITING = 8


class Detokenizer:
    """Gives out the text of a growing list of tokens. The pieces add up to the text of all tokens decoded at once.

    A token may end with a part of a character, which is kept back until the rest comes. A token's text may also depend
    on the token before it (a blank between words), so each piece is decoded behind the piece before and cut from it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        """`decode` gives the text of any list of token ids."""
        self._decode = decode
        self._window: list[int] = []  # the tokens of the last piece, then those whose text is not complete
        self._num_given = 0  # how many of the window the last piece was
        self._num_shown = 0  # characters of the others that have been given out

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
        given = len(self._decode(self._window[: self._num_given]))
        text = self._decode(self._window)
        if len(text) == given:
            return ""
        start = given + self._num_shown
        end = len(text) if final else len(text.rstrip(REPLACEMENT))
        done, num_done = end, 0
        if end == len(text):
            num_done = len(self._window)
        elif len(self._window) - self._num_given > MOST_WAITING:
            num_done, done = self._cut(text)
            end = max(end, done)
        if num_done:
            self._window, self._num_given = self._window[self._num_given :], num_done - self._num_given
            self._num_shown = end - done
        else:
            self._num_shown = max(end - given, self._num_shown)
        return text[start:end]

    def _cut(self, text: str) -> tuple[int, int]:
        """The tokens of the window that no later one can change, and the length of their text; (0, 0) if none is found.

        Where a character lies across two tokens, its halves decoded apart are more than the two decoded together.
        """
        size = len(self._window)
        for count in range(size - 1, max(size - 5, self._num_given), -1):
            head, tail = self._decode(self._window[:count]), self._decode(self._window[count:])
            if tail and head + tail == text:
                return count, len(head)
        return 0, 0
