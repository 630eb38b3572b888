"""The text of one output as it grows: where a stop string ends it, and how much of it may be shown already."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tinyllm.engine.detokenizer import Detokenizer


class OutputText:
    """Collects an output's tokens and makes text of them when it is needed.

    Attributes:
        text: the text so far, without the stop string that ended it.
        stopped: whether a stop string was found.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        """`decode` gives the text of any list of token ids; `stop` are the strings that end the output."""
        self.text = ""
        self.stopped = False
        self._stop = stop
        self._detokenizer = Detokenizer(decode)
        self._pending: list[int] = []  # tokens that are not in the text yet
        self._num_taken = 0  # characters that `take` has given out

    def push(self, token_id: int) -> None:
        """Add a token; nothing is decoded before `update`."""
        self._pending.append(token_id)

    def update(self, may_stop: bool = True) -> None:
        """Decode what was pushed, and cut the text where a stop string begins that this completes.

        Args:
            may_stop: False lets a stop string pass, for good.
        """
        self._append(self._detokenizer.add(self._pending), may_stop)
        self._pending.clear()

    def finish(self, may_stop: bool = True) -> None:
        """Complete the text: no more tokens come, so nothing needs to be kept back.

        Args:
            may_stop: see `update`; here for what was kept back until now.
        """
        if not self.stopped:
            self.update(may_stop)
        if not self.stopped:
            self._append(self._detokenizer.finish(), may_stop)
        self._stop = ()

    def _append(self, piece: str, may_stop: bool) -> None:
        searched = len(self.text)
        self.text += piece
        if may_stop:
            # A match may begin in the text of earlier tokens, but it was not complete there.
            starts = [self.text.find(stop, max(0, searched - len(stop) + 1)) for stop in self._stop]
            if found := [at for at in starts if at >= 0]:
                self.text = self.text[: min(found)]
                self.stopped = True

    def take(self) -> str:
        """The new text that may be shown: not what may turn out to be the beginning of a stop string."""
        end = len(self.text) - self._num_held_back()
        piece = self.text[self._num_taken : end]
        self._num_taken = end
        return piece

    def _num_held_back(self) -> int:
        """The length of the longest end of the text that begins a stop string."""
        if self.stopped:
            return 0
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        ends = range(min(longest, len(self.text)), 0, -1)
        return next((n for n in ends if any(stop.startswith(self.text[-n:]) for stop in self._stop)), 0)
