"""`tinyllm chat`: a conversation with the model, line by line.

On a terminal it is for people: a banner, prompts, Ctrl-C to stop an answer. With input or output piped, stdout holds
the answers and nothing else, each ended by one line feed. Whatever else there is to say goes to stderr.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from tinyllm.console import make_console, unreadable
from tinyllm.errors import GenerationError
from tinyllm.model_text import ModelText, stream
from tinyllm.names import did_you_mean
from tinyllm.paths import shipped_checkpoint

if TYPE_CHECKING:
    from tinyllm.engine.llm import LLM
    from tinyllm.sampling_params import SamplingParams

HELP = {
    "/help": "shows this",
    "/reset": "starts over: the model forgets the conversation",
    '"""': "begins and ends a message of several lines, for passages with a question below them",
    "exit, quit, Ctrl-D": "leaves",
    "Ctrl-C": "stops an answer; what came of it stays in the conversation",
}
COMMANDS = ("/help", "/reset", "/exit", "/quit")
FENCE = '"""'
PRESSES = 3  # of Ctrl-C that end the program though a step is still under way

SHIPPED_NOTE = """\
It was made for this course: small talk, short stories, the words of LLM serving, and questions about passages that you
give it, as in the line below. It is no general assistant: what it was not taught it answers fluently and wrongly.
  Oak Bridge was opened in 1931. [1] When was Oak Bridge opened?"""


class Chat:
    """One conversation.

    Attributes:
        messages: all of it so far, oldest first, whether the model still sees it or not.
        num_unseen: how many of the oldest messages no longer fit into what the model reads.
    """

    def __init__(self, llm: LLM, params: SamplingParams) -> None:
        self.llm = llm
        self.params = params
        self.out = ModelText()
        self.notes = make_console(stderr=True)
        self.messages: list[dict[str, str]] = []
        self.num_unseen = 0
        self.presses: list[int] = []  # of Ctrl-C since the line was read
        self.has_person = sys.stdin.isatty()
        self.is_interactive = self.has_person and self.out.is_terminal

    def run(self) -> None:
        """Answer line after line, until `exit` or the end of the input."""
        if self.is_interactive:
            with suppress(ImportError):
                import readline  # noqa: F401 (its import gives `input` line editing and a history)
            self.note(self.banner())
        while True:
            try:
                line = self.read_message()
            except EOFError:
                if self.has_person:
                    self.note("")
                return
            except KeyboardInterrupt:
                if not self.is_interactive:
                    raise
                self.note("\nTo leave: exit, or Ctrl-D.")
                continue
            if line.casefold() in ("exit", "quit", "/exit", "/quit"):
                return
            with ctrl_c_counted(self.is_interactive) as self.presses:
                self.obey_or_answer(line)

    def obey_or_answer(self, line: str) -> None:
        """Do what a line asks for: a command, an answer, or nothing where it is empty."""
        if line == "/reset":
            self.messages, self.num_unseen = [], 0
            self.note("Started over.")
        elif line == "/help":
            self.note("\n".join(f"  {name:<20}{text}" for name, text in HELP.items()))
        elif re.fullmatch(r"/\w*", line):
            self.note(f"there is no {line} here{did_you_mean(line, COMMANDS)} /help lists what there is.")
        elif unreadable(line):
            self.note(f"This line holds bytes that are no {sys.stdin.encoding} text, so it was not sent.")
        elif line:
            self.answer(line)

    # ------------------------------------------------------------ what the person says

    def read_message(self) -> str:
        """The next line, without blanks around it; or the lines between two of the marks for several.

        Raises:
            EOFError: there is none.
        """
        line = self.read_line("you: ").strip()
        if not line.startswith(FENCE):
            return line
        lines = [line.removeprefix(FENCE)]
        with suppress(EOFError):  # the end of the input ends the message too
            while not lines[-1].rstrip().endswith(FENCE):
                lines.append(self.read_line("...  "))
        return "\n".join(lines).strip().removesuffix(FENCE).strip()

    def read_line(self, prompt: str) -> str:
        """A line as it was typed or piped; the prompt is for a person, and never goes into a pipe."""
        if self.is_interactive:
            return input(prompt)
        if self.has_person:
            print(prompt, end="", file=sys.stderr, flush=True)
        return input()

    # ------------------------------------------------------------ what the model says

    def answer(self, line: str) -> None:
        """Stream the answer to a line, and keep both; a line that gets no answer leaves the conversation as it was."""
        messages = [*self.messages, {"role": "user", "content": line}]
        token_ids, num_unseen = self.fitting(messages)
        limit = self.llm.engine.max_model_len
        if len(token_ids) >= limit:
            self.note(
                f"This line alone has {len(token_ids):,} tokens, and the model reads at most {limit - 1:,} before it "
                "answers: shorten it. It was not sent; the conversation is as it was."
            )
            return
        if num_unseen > self.num_unseen:
            self.note(
                f"(The conversation is longer than the {limit:,} tokens that the model reads at once: it no longer "
                f"sees the oldest {num_unseen} messages. /reset starts over.)"
            )
            self.num_unseen = num_unseen
        try:
            reply, why_it_ended = self.stream_answer(token_ids)
        except GenerationError as error:
            self.note(f"The answer failed: {error}. The conversation is as it was before this line.")
            return
        if reply or not why_it_ended:
            self.messages = [*messages, {"role": "assistant", "content": reply}]
        if why_it_ended:
            self.note(f"({why_it_ended})")

    def fitting(self, messages: list[dict[str, str]]) -> tuple[list[int], int]:
        """The token ids of the newest messages that leave room for an answer, and how many older ones are left out.

        The last message is always among them, whatever its length.
        """
        limit = self.llm.engine.max_model_len
        room = min(self.params.max_tokens, limit // 4)
        for start in range(self.num_unseen, len(messages), 2):  # a question goes with its answer
            token_ids = self.llm.tokenizer.apply_chat_template(messages[start:])
            if len(token_ids) + room <= limit:
                break
        return token_ids, start

    def stream_answer(self, token_ids: list[int]) -> tuple[str, str]:
        """Write an answer as it comes; returns it, and why it ended where that was not the model's doing.

        Raises:
            GenerationError: it failed on the way.
        """
        if self.is_interactive:
            self.out.write("model: ")
        reply, why_it_ended = "", ""
        with closing(stream(self.llm.engine, token_ids, self.params)) as deltas:
            try:
                for delta in deltas:
                    self.out.write(delta.text)
                    reply += delta.text
                    if delta.error:
                        raise GenerationError(delta.error)
                    if delta.finish_reason == "length":
                        why_it_ended = self.why_cut(len(token_ids))
                    elif self.presses and not delta.finish_reason:
                        why_it_ended = "stopped" if reply else "stopped before a word came; the line is forgotten"
                        break
            finally:
                self.out.write("\n")
        return reply, why_it_ended

    def why_cut(self, num_prompt_tokens: int) -> str:
        """Why an answer ended at a limit."""
        if num_prompt_tokens + self.params.max_tokens <= self.llm.engine.max_model_len:
            return f"cut after {self.params.max_tokens} tokens; --max-tokens allows more"
        return f"cut: the model reads and writes at most {self.llm.engine.max_model_len:,} tokens at once"

    # ------------------------------------------------------------ what we say

    def banner(self) -> str:
        """Which model this is, what it can do, and how to leave."""
        folder = self.llm.tokenizer.folder.resolve()
        millions = sum(weight.numel() for weight in self.llm.model.parameters()) / 1e6
        ships = folder.parent == shipped_checkpoint().parent
        lines = [
            f"{folder.name}: {'a very small language model, ' if ships else ''}{millions:,.1f} million parameters. "
            f"It reads {self.llm.engine.max_model_len:,} tokens at once.",
            *([SHIPPED_NOTE] if ships else []),
            "/help lists the commands. To leave: exit, or Ctrl-D.",
        ]
        return "\n".join(lines) + "\n"

    def note(self, text: str) -> None:
        """Something that the model did not say."""
        self.notes.print(text, markup=False)


@contextmanager
def ctrl_c_counted(enabled: bool) -> Iterator[list[int]]:
    """A list that grows with each Ctrl-C, which then no longer interrupts: no step of the engine is cut in its middle.

    The third one interrupts all the same, in case a step never ends.
    """
    presses: list[int] = []

    def count(number: int, frame: FrameType | None) -> None:
        presses.append(number)
        if len(presses) == PRESSES:
            raise KeyboardInterrupt

    if not enabled:
        yield presses
        return
    before = signal.signal(signal.SIGINT, count)
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, before)
