"""One training sample: a text, or a conversation that may use tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text; every token of it is learned."""

    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in the form of `apply_chat_template`; what the assistant says is learned.

    Attributes:
        messages: `role` and `content`; an assistant's may carry `tool_calls`, a tool's result has the role `tool`.
        tools: function definitions (JSON schema) that stand in the system turn.
        unlearned: places of messages of the assistant that are read only, as they are mistakes.
    """

    messages: Sequence[dict[str, Any]]
    tools: Sequence[dict[str, Any]] = ()
    unlearned: Sequence[int] = ()


Sample = Document | Conversation
