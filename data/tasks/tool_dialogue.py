"""A live conversation: a user with a list of requests, a model that writes text, and the tools that it calls."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from data.tasks.tool_calls import ToolCall, parse_tool_calls
from data.tasks.tool_requests import Round
from data.tasks.tool_scene import Scene

# The oracle needs at most four calls for a request, and one more where something goes wrong.
MAX_CALLS = 8


class Dialogue:
    """Takes what the model writes, runs its calls, and says what comes next; many can share one engine batch.

    Args:
        scene: the world and the listed tools.
        rounds: what the user says, in order.
        busy: the calls, counted from 0, that find the tool busy.
        max_calls: how many calls an answer may take; one that wants more is given up, and with it the dialogue.
    """

    def __init__(
        self, scene: Scene, rounds: Sequence[Round], busy: Collection[int] = (), max_calls: int = MAX_CALLS
    ) -> None:
        self.toolbox = scene.toolbox(busy)
        self.tools = scene.definitions
        self.max_calls = max_calls
        self.messages: list[dict[str, Any]] = []
        self.answers: list[str] = []
        self.num_calls = 0
        self.num_valid = 0
        self._waiting = [turn.text for turn in rounds]
        self._calls_left = 0
        self.done = False
        self._next_request()

    @property
    def next_prompt(self) -> list[dict[str, Any]] | None:
        """The messages that the model has to go on from, or None when there is nothing more to say."""
        return None if self.done else self.messages

    def feed(self, text: str) -> None:
        """Take the model's next message as text: calls in `<tool_call>` tags, or an answer."""
        calls = parse_tool_calls(text)
        broken = any(call.error for call in calls)
        self.act(text if broken else text.split("<tool_call>")[0].strip(), calls)

    def act(self, content: str, calls: Sequence[ToolCall]) -> None:
        """Take the model's next message: run the calls, or take the content as the answer when there is none."""
        if not calls:
            self.messages.append({"role": "assistant", "content": content})
            self.answers.append(content)
            self._next_request()
            return
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if not any(call.error for call in calls):
            message["tool_calls"] = [call.message for call in calls]
        self.messages.append(message)
        for call in calls:
            problem = call.error or self.toolbox.problem(call.name, call.arguments)
            self.num_calls += 1
            self.num_valid += not problem
            result = f"Error: {problem}" if problem else self.toolbox.call(call.name, call.arguments)
            self.messages.append({"role": "tool", "content": result})
        self._calls_left -= len(calls)
        self.done = self._calls_left < 0

    def _next_request(self) -> None:
        self.done = not self._waiting
        self._calls_left = self.max_calls
        if self._waiting:
            self.messages.append({"role": "user", "content": self._waiting.pop(0)})
