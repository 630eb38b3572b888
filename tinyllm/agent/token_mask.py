"""Constrained decoding: which tokens may come next, so that every tool call that a model writes is valid.

Between `<tool_call>` and `</tool_call>` a token is allowed if the grammar can read its bytes (arXiv 2307.09702);
outside of them the model writes what it likes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tinyllm.agent.automaton import States
from tinyllm.agent.grammar import tool_calls
from tinyllm.errors import RequestError
from tinyllm.model.tokenizer import Tokenizer

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(slots=True)
class Node:
    """A place in the tree of all tokens: the tokens that end here, and what leads on."""

    tokens: list[int] = field(default_factory=list)
    children: dict[int, Node] = field(default_factory=dict)


class ToolCallMask:
    """Holds a model to calls of the listed tools; for `SamplingParams.allowed_tokens`.

    In use: `llm.chat(messages, SamplingParams(allowed_tokens=mask), tools=tools)`. What it returns follows from the
    output alone; what it keeps is what it has worked out before.
    """

    def __init__(self, tokenizer: Tokenizer, tools: Sequence[Mapping[str, Any]], vocab_size: int) -> None:
        """Read the tools' schemas.

        Args:
            tokenizer: its control tokens `<tool_call>` and `</tool_call>` surround a call.
            tools: the functions that may be called, as a chat template takes them.
            vocab_size: V of the logits.

        Raises:
            RequestError: no tool is listed, a schema is not supported, or the tokenizer does not fit.
        """
        self.grammar = tool_calls(tools)
        self.open, self.close = (control_token(tokenizer, token) for token in (OPEN, CLOSE))
        self.tokens, self.tree = tokenizer.token_bytes, token_tree(tokenizer)
        self.vocab_size = vocab_size
        self._masks: dict[States, Tensor] = {}

    def __call__(self, output_token_ids: Sequence[int]) -> Tensor:
        """Bool [V], True at the tokens that may follow this output."""
        borders = [place for place, token in enumerate(output_token_ids) if token in (self.open, self.close)]
        if not borders or output_token_ids[borders[-1]] == self.close:
            return torch.ones(self.vocab_size, dtype=torch.bool)
        states = self.grammar.start
        for token in output_token_ids[borders[-1] + 1 :]:
            states = self.grammar.read(states, self.tokens[token])
        if states not in self._masks:
            self._masks[states] = self._mask(states)
        return self._masks[states]

    def _mask(self, states: States) -> Tensor:
        """Down the tree of tokens, for as long as the grammar can read on: most of it is never looked at."""
        allowed = torch.zeros(self.vocab_size, dtype=torch.bool)
        allowed[self.close] = self.grammar.complete(states)
        waiting = [(self.tree, states)]
        while waiting:
            node, reached = waiting.pop()
            allowed[node.tokens] = True
            for byte, child in node.children.items():
                if further := self.grammar.step(reached, byte):
                    waiting.append((child, further))
        return allowed


def control_token(tokenizer: Tokenizer, text: str) -> int:
    """The id of a control token.

    Raises:
        RequestError: the tokenizer has none that is written so.
    """
    ids = tokenizer.encode(text, allow_special=True)
    if len(ids) != 1:
        raise RequestError(f"the tokenizer of {tokenizer.folder} has no control token {text}, so it cannot call tools")
    return ids[0]


@lru_cache(maxsize=8)
def token_tree(tokenizer: Tokenizer) -> Node:
    """All tokens but the control tokens, by their bytes: those that begin alike share their beginning."""
    root = Node()
    for token, text in tokenizer.token_bytes.items():
        node = root
        for byte in text:
            node = node.children.setdefault(byte, Node())
        node.tokens.append(token)
    return root
