"""Stands where a loaded model is: answers come from a script, a piece a step, so that a terminal is tested without one.

`python scripted_llm.py chat ...` is the `tinyllm` command over it, for tests that need a process of its own.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from tinyllm.errors import RequestError


def answer(prompt: str) -> Iterator[str]:
    """The pieces of the answer to a conversation, told by its last line."""
    lines = prompt.splitlines()
    if lines[-1].endswith("count"):  # for ever
        yield from (f"{number} " for number in itertools.count())
    elif lines[-1].endswith("odd"):
        yield from (":apple: [bold]x[/bold]", "\t\x1b[2J", "\x9b2Kend  \n")
    else:
        yield from (f"[{len(lines)}] ", lines[-1].removeprefix("user: "))


class ScriptedEngine:
    """The calls of `LLMEngine` that the command line makes."""

    max_model_len = 100

    def __init__(self) -> None:
        self.open: dict[str, tuple[Iterator[str], Any, Callable[[Any], None]]] = {}
        self.aborted: list[str] = []
        self.num_steps = 0

    def add_request(
        self, prompt: Sequence[int] | str, params: Any, request_id: str | None = None, on_delta: Any = None
    ) -> str:
        if not prompt:
            raise RequestError("the prompt is empty; give at least one token")
        text = prompt if isinstance(prompt, str) else "".join(map(chr, prompt))
        name = f"request-{self.num_steps}"
        self.open[name] = (answer(text), params, on_delta)
        return name

    def step(self) -> list[Any]:
        self.num_steps += 1
        for name, (pieces, params, on_delta) in list(self.open.items()):
            text = next(pieces, None)
            reason = "stop" if text is None else None
            for index in reversed(range(params.n)):  # the last first, as no reader wants them
                on_delta(SimpleNamespace(index=index, text=text or "", error="", finish_reason=reason))
            if reason:
                del self.open[name]
        return []

    def abort(self, request_id: str) -> None:
        if self.open.pop(request_id, None):
            self.aborted.append(request_id)


class ScriptedLLM:
    """What `LLM` offers to the command line; a token is a character."""

    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, model: Any = None, **options: Any) -> None:
        self.made.append(options)
        self.rank = 0
        self.engine = ScriptedEngine()
        self.tokenizer = SimpleNamespace(folder=Path("/models/scripted"), apply_chat_template=self.template)
        self.model = SimpleNamespace(parameters=lambda: [SimpleNamespace(numel=lambda: 5_700_000)])

    @staticmethod
    def template(messages: Sequence[dict[str, str]]) -> list[int]:
        return [ord(letter) for each in messages for letter in f"{each['role']}: {each['content']}\n"]


if __name__ == "__main__":
    from tinyllm import cli

    cli.load = ScriptedLLM
    sys.argv[0] = "tinyllm"
    cli.main()
