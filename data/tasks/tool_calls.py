"""The calls in what a model writes: Qwen's `<tool_call>` blocks of JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

BLOCK = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call; `error` says what is wrong with its JSON, or is empty."""

    name: str
    arguments: dict[str, Any]
    error: str = ""

    @property
    def message(self) -> dict[str, Any]:
        """The entry of an assistant message's `tool_calls`."""
        return {"type": "function", "function": {"name": self.name, "arguments": self.arguments}}

    @property
    def text(self) -> str:
        """The call as the chat template writes it."""
        body = json.dumps({"name": self.name, "arguments": self.arguments}, ensure_ascii=False)
        return f"<tool_call>\n{body}\n</tool_call>"


def parse_tool_calls(text: str) -> list[ToolCall]:
    """The calls in a model's text, in order; a block that is not a call comes back with its error."""
    return [_parse(body) for body in BLOCK.findall(text)]


def _parse(body: str) -> ToolCall:
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return ToolCall("", {}, "the call is not valid JSON")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return ToolCall("", {}, "the call has no name")
    if not isinstance(call.get("arguments"), dict):
        return ToolCall(call["name"], {}, "arguments must be an object")
    return ToolCall(call["name"], call["arguments"])
