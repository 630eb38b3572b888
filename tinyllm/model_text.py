"""The model's text on its way out: unchanged, piece by piece as it comes, and harmless to a terminal."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, TextIO

from tinyllm.console import make_console
from tinyllm.errors import GenerationError

if TYPE_CHECKING:
    from tinyllm.engine.engine import LLMEngine
    from tinyllm.engine.request import OutputDelta
    from tinyllm.sampling_params import SamplingParams

#: Control characters as a terminal shows them: C0 and DEL as `less` and `cat -v` do (`^[`), C1 by its number.
VISIBLE = {
    **{code: "^" + chr(code ^ 0x40) for code in [*range(0x20), 0x7F] if chr(code) not in "\n\t"},
    **{code: f"<U+{code:04X}>" for code in range(0x80, 0xA0)},
}


def visible(text: str) -> str:
    """A text without anything that a terminal obeys: control characters but line feed and tab in visible form.

    A model may write any character. The sequences that begin with ESC (or its one-character forms, 0x80 to 0x9F) move
    the cursor, rename the window, fill the clipboard or make the terminal type by itself; a carriage return writes over
    what stands there.
    """
    return text.translate(VISIBLE)


class ModelText:
    """Writes the text of a model, and of its prompt, to stdout.

    To a file or a pipe it goes as it is, character for character: whoever reads it there wants the text itself. On a
    terminal it is `visible`. Neither is wrapped, trimmed or searched for markup, and each piece is there at once. What
    the encoding of the output does not have shows as its number; see `make_streams_safe`.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        """`stream` is stdout by default."""
        self.stream = stream or sys.stdout
        self.is_terminal = self.stream.isatty()
        self._has_styles = self.is_terminal and make_console().color_system is not None

    def write(self, text: str, dim: bool = False) -> None:
        """Write a piece; `dim` sets it back, on a terminal that can."""
        if self.is_terminal:
            text = visible(text)
        if dim and self._has_styles:
            text = f"\x1b[2m{text}\x1b[0m"
        self.stream.write(text)
        self.stream.flush()


def nowhere() -> TextIO:
    """A stream for text that another process writes."""
    return open(os.devnull, "w", encoding="utf-8")


def stream(
    engine: LLMEngine, prompt: str | Sequence[int], params: SamplingParams
) -> Generator[OutputDelta, None, None]:
    """Queue a request now, and give what each step adds to it; closing the generator early gives the request up.

    Raises:
        RequestError: at once, where it can never be served.
    """
    deltas: list[OutputDelta] = []
    request_id = engine.add_request(prompt, params, on_delta=deltas.append)

    def follow() -> Generator[OutputDelta, None, None]:
        num_open = params.n
        try:
            while num_open:
                engine.step()
                for delta in deltas:
                    num_open -= delta.finish_reason is not None
                    yield delta
                deltas.clear()
        finally:
            engine.abort(request_id)

    return follow()


def write_continuations(engine: LLMEngine, prompt: str, params: SamplingParams, out: ModelText) -> None:
    """Write the prompt and each of its continuations, one below the other and each ended by one line feed.

    The one whose turn it is appears as it comes; what comes of the others meanwhile is kept for their turn.

    Raises:
        RequestError: the request can never be served; nothing was written.
        GenerationError: a continuation failed while it ran.
    """
    waiting: list[deque[OutputDelta]] = [deque() for _ in range(params.n)]
    with closing(stream(engine, prompt, params)) as deltas:
        for turn in waiting:
            out.write(prompt, dim=True)
            finished = False
            while not finished:
                while not turn:
                    delta = next(deltas)
                    waiting[delta.index].append(delta)
                delta = turn.popleft()
                if delta.error:
                    raise GenerationError(delta.error)
                out.write(delta.text)
                finished = delta.finish_reason is not None
            out.write("\n")
