"""Text to token ids and back, and the chat template of a checkpoint. Built on `tokenizers` and `jinja2` alone.

Some tokens steer the model: `<|im_end|>` ends a turn. Text that merely spells such a control token (a user may
type it, a document may contain it) must never become one, or whoever writes the text could speak as the system.
So control tokens are made in two places only: `encode(..., allow_special=True)` and the chat template itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as HFTokenizer

from tinyllm.checkpoint.end_tokens import end_token_ids, text_of_token
from tinyllm.checkpoint.files import read_json
from tinyllm.errors import CheckpointError, RequestError

Message = Mapping[str, Any]
ROLES = ("system", "user", "assistant", "tool")


class Tokenizer:
    """The tokenizer of a checkpoint folder.

    Attributes:
        eos_token_ids: tokens that end a sequence.
        vocab_size: V of the tokenizer, control tokens included. The model's own V may be padded above it.
    """

    def __init__(self, folder: str | Path) -> None:
        """Read `tokenizer.json`, `tokenizer_config.json` and, where they lie there, the template and end tokens.

        Raises:
            CheckpointError: a file is missing or cannot be read.
        """
        self.folder = Path(folder)
        path = self.folder / "tokenizer.json"
        raw = read_json(path)
        try:
            self._with_control = HFTokenizer.from_str(json.dumps(raw))
            # Without its added tokens a tokenizer sees ordinary text only, whatever the text spells.
            self._plain = HFTokenizer.from_str(json.dumps({**raw, "added_tokens": []}))
        except Exception as error:  # the library raises bare Exception on a malformed file
            raise CheckpointError(f"{path} is not a tokenizer ({error}); copy the checkpoint folder again") from None
        self._control_ids = {token.content: i for i, token in self._with_control.get_added_tokens_decoder().items()}
        self._config = read_json(self.folder / "tokenizer_config.json")
        self.vocab_size: int = self._with_control.get_vocab_size()
        self.eos_token_ids = self._read_eos_token_ids()

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Token ids of `text`.

        Args:
            text: any string.
            allow_special: let `<|im_end|>` and its like in `text` become control tokens. For trusted text only.

        Raises:
            RequestError: `text` is no string, or holds half a character (a lone surrogate).
        """
        tokenizer = self._with_control if allow_special else self._plain
        try:
            return tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:
            raise RequestError(
                f"cannot encode {text!r:.100}: give a str. One with a lone surrogate, as "
                'errors="surrogateescape" leaves behind, has no UTF-8 form; decode its bytes with errors="replace"'
            ) from None

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of `ids`, with or without its control tokens.

        Bytes that are no whole UTF-8 character, as at the end of a cut output, show as U+FFFD.
        """
        return self._with_control.decode(list(ids), skip_special_tokens=skip_special)

    @cached_property
    def token_bytes(self) -> dict[int, bytes]:
        """Each token's bytes, control tokens left out; a token may begin or end within a character.

        Raises:
            RequestError: the tokenizer is no byte-level BPE, so that a token's text depends on its neighbours.
        """
        control, letters = set(self._control_ids.values()), byte_letters()
        tokens = {i: token for token, i in self._with_control.get_vocab().items() if i not in control}
        try:
            return {i: bytes(letters[letter] for letter in token) for i, token in tokens.items()}
        except KeyError as letter:
            raise RequestError(f"{self.folder} has no byte-level tokenizer: a token holds {letter}") from None

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """Token ids of a conversation, as the checkpoint's own template writes it.

        Args:
            messages: `{"role": "user", "content": "..."}` and so on, oldest first. An assistant's may carry
                `tool_calls`, each `{"type": "function", "function": {"name": ..., "arguments": {...}}}`, and may
                then lack a content; what a tool gave back has the role `tool`.
            tools: the functions that the model may call, each
                `{"type": "function", "function": {"name": ..., "description": ..., "parameters": JSON schema}}`.
            add_generation_prompt: end with the head of the assistant's turn, so that the model answers.

        Raises:
            CheckpointError: the checkpoint has no chat template.
            RequestError: a message has no role or content, a tool has no name, or the template refuses them.
        """
        check_messages(messages)
        check_tools(tools or ())
        # A mark behind every character that could begin a control token hides what messages and tools spell from the
        # search below, which then finds the template's own control tokens only.
        given = {"messages": list(messages), "tools": list(tools) if tools else None}
        mark = unused_character(json.dumps(given, ensure_ascii=False, default=str))
        beginnings = str.maketrans({token[0]: token[0] + mark for token in self._control_ids})
        hidden = map_strings(given, lambda text: text.translate(beginnings))
        try:
            rendered = self._template.render(**hidden, add_generation_prompt=add_generation_prompt)
        except (TemplateError, TypeError) as error:
            raise RequestError(f"the chat template of {self.folder} refuses these messages: {error}") from None
        ids: list[int] = []
        for piece in self._split_at_control_tokens(rendered):
            control_id = self._control_ids.get(piece)
            ids += self.encode(piece.replace(mark, "")) if control_id is None else [control_id]
        return ids

    @cached_property
    def _template(self) -> Template:
        """The compiled chat template. It comes with the checkpoint, so it runs in a sandbox."""
        path = self.folder / "chat_template.jinja"
        source = path.read_text(encoding="utf-8") if path.is_file() else self._config.get("chat_template")
        if not isinstance(source, str):
            raise CheckpointError(
                f"{self.folder} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): "
                "it is no chat model; give a plain prompt to generate() instead"
            )
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        environment.globals["raise_exception"] = refuse
        for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
            if (token := text_of_token(self._config.get(key))) is not None:
                environment.globals[key] = token
        try:
            return environment.from_string(source)
        except TemplateError as error:
            raise CheckpointError(f"the chat template of {self.folder} is no valid jinja2 ({error})") from None

    def _split_at_control_tokens(self, text: str) -> list[str]:
        longest_first = sorted(self._control_ids, key=len, reverse=True)
        pattern = "|".join(re.escape(token) for token in longest_first)
        return [piece for piece in re.split(f"({pattern})", text) if piece] if pattern else [text]

    def _read_eos_token_ids(self) -> tuple[int, ...]:
        for name in ("generation_config.json", "config.json"):
            if (self.folder / name).is_file():
                eos = read_json(self.folder / name).get("eos_token_id")
                if eos is not None:
                    return tuple(eos) if isinstance(eos, list) else (eos,)
        eos_token = text_of_token(self._config.get("eos_token"))
        return (self._control_ids[eos_token],) if eos_token in self._control_ids else ()


def byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2): itself where it can be printed."""
    printed = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + place): byte for place, byte in enumerate(others)}


def check_messages(messages: Sequence[Message]) -> None:
    """Raise RequestError unless each message has a known role and a text, or calls tools.

    Templates pass over what they do not know, so a message that is not checked could vanish from the prompt.
    """
    for number, message in enumerate(messages):
        known = isinstance(message, Mapping) and message.get("role") in ROLES
        content = message.get("content") if known else None
        if not (isinstance(content, str) or (known and content is None and message.get("tool_calls"))):
            raise RequestError(
                f"message {number} is {message!r}; give a list of messages such as "
                f'{{"role": "user", "content": "Hello"}}, with the roles {", ".join(ROLES)}; '
                "only a message with tool_calls may have no content"
            )


def check_tools(tools: Sequence[Mapping[str, Any]]) -> None:
    """Raise RequestError unless each tool is the definition of a function with a name."""
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not (isinstance(function, Mapping) and isinstance(function.get("name"), str)):
            raise RequestError(
                f"tool {number} is {tool!r}; give a list of definitions such as "
                '{"type": "function", "function": {"name": "search", "parameters": {...}}}'
            )


def text_of_token(entry: Any) -> str | None:
    """The text of a token in `tokenizer_config.json`, which is a string or an object that holds it as `content`."""
    return entry.get("content") if isinstance(entry, dict) else entry


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of nested lists and mappings in which every string, keys too, went through `change`."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {map_strings(key, change): map_strings(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_strings(item, change) for item in value]
    return value


def unused_character(text: str) -> str:
    """A private-use character that `text` does not hold."""
    return next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in text)


def refuse(message: str) -> None:
    """What a template calls to reject a conversation."""
    raise TemplateError(message)
