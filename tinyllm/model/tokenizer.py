"""Text to token ids and back, and the chat template of a checkpoint. Built on `tokenizers` and `jinja2` alone.

Some tokens steer the model: `<|im_end|>` ends a turn. Text that merely spells such a control token (a user may
type it, a document may contain it) must never become one, or whoever writes the text could speak as the system.
So control tokens are made in two places only: `encode(..., allow_special=True)` and the chat template itself; see
control_tokens.py for what counts as one and how the two are told apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as HFTokenizer

from tinyllm.checkpoint.end_tokens import end_token_ids
from tinyllm.checkpoint.files import read_json
from tinyllm.errors import CheckpointError, RequestError
from tinyllm.model.chat_template import find_template, template_data
from tinyllm.model.control_tokens import forged_spans, spelling

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
        for tokenizer in (self._with_control, self._plain):
            # Left over from training in `tokenizer.json`: they would cut long prompts and fill up short ones.
            tokenizer.no_truncation()
            tokenizer.no_padding()
        unknown = raw["model"].get("unk_token")
        self._unknown_id = self._with_control.token_to_id(unknown) if unknown else None
        added = self._with_control.get_added_tokens_decoder()
        self._added_ids = set(added)
        self._control_ids = {t.content: i for i, t in added.items() if t.special or not t.content.isspace()}
        self._config = read_json(self.folder / "tokenizer_config.json")
        self._find_template = cache(lambda with_tools: find_template(self.folder, self._config, with_tools))
        self.vocab_size: int = self._with_control.get_vocab_size()
        self.eos_token_ids = end_token_ids(self.folder)

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Token ids of `text`.

        Args:
            text: any string.
            allow_special: let `<|im_end|>` and its like in `text` become control tokens. For trusted text only.

        Raises:
            RequestError: `text` is no string, holds half a character (a lone surrogate), or spells a control token that
                this tokenizer makes of ordinary text.
        """
        tokenizer = self._with_control if allow_special else self._plain
        try:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:
            raise RequestError(
                f"cannot encode {text!r:.100}: give a str. One with a lone surrogate, as "
                'errors="surrogateescape" leaves behind, has no UTF-8 form; decode its bytes with errors="replace"'
            ) from None
        if not allow_special:
            made = self._added_ids.intersection(ids)
            forged = [token for token, i in self._control_ids.items() if i in made and token in text]
            if forged:
                raise RequestError(f"the tokenizer of {self.folder} makes a control token of the text {forged[0]!r}")
        return ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of `ids`, with or without its control tokens.

        Bytes that are no whole UTF-8 character, as at the end of a cut output, show as U+FFFD.
        """
        return self._with_control.decode(list(ids), skip_special_tokens=skip_special)

    @cached_property
    def token_bytes(self) -> dict[int, bytes]:
        """Each token's bytes, control tokens left out; a token may begin or end within a character.

        Raises:
            RequestError: the tokenizer is no byte-level BPE, so that a token's text depends on its neighbors.
        """
        letters = byte_letters()
        tokens = {i: token for token, i in self._with_control.get_vocab().items() if i not in self._added_ids}
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
            RequestError: there is no message, one has no role or content, a tool has no name, the template refuses
                them, or it cannot be told who wrote a control token.
        """
        check_messages(messages)
        check_tools(tools or ())
        template = self._find_template(tools is not None)
        given = template_data(messages, tools, add_generation_prompt)
        text = template.render(given)
        control_tokens = list(self._control_ids)
        ids: list[int] = []
        written = place = 0  # control tokens that the template wrote; how far the text is encoded
        for start, end in [*forged_spans(template, given, text, control_tokens), (len(text), len(text))]:
            ids += self._encode_piece(text, place, start, allow_special=True)
            ids += self._encode_piece(text, start, end, allow_special=False)
            written += len(spelling(text[place:start], control_tokens))
            place = end
        control_ids = set(self._control_ids.values()) - {self._unknown_id}
        if sum(i in control_ids for i in ids) > written:
            raise RequestError(f"the tokenizer of {self.folder} makes a control token of text that does not spell it")
        return ids

    def _encode_piece(self, text: str, start: int, end: int, allow_special: bool) -> list[int]:
        """Token ids of a part of `text`. Only at its start may the tokenizer put a blank in front (SentencePiece)."""
        piece = text[start:end]
        if start == 0 or not piece:
            return self.encode(piece, allow_special)
        newline, ids = self.encode("\n"), self.encode("\n" + piece, allow_special)
        return ids[len(newline) :] if ids[: len(newline)] == newline else self.encode(piece, allow_special)


def byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2): itself where it can be printed."""
    printed = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + place): byte for place, byte in enumerate(others)}


def check_messages(messages: Sequence[Message]) -> None:
    """Raise RequestError unless each message has a known role and a text, or calls tools.

    Templates pass over what they do not know, so a message that is not checked could vanish from the prompt.
    """
    if not messages:
        raise RequestError('there is no message; give a list such as [{"role": "user", "content": "Hello"}]')
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
