"""Held to the tools' schemas, a model writes valid calls, whatever it would have liked to write."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch

from data.tasks.tool_calls import ToolCall, parse_tool_calls
from data.tasks.tools import draw_tool_task
from tinyllm.agent.token_mask import CLOSE, OPEN, ToolCallMask, control_token
from tinyllm.engine.llm import LLM
from tinyllm.errors import RequestError
from tinyllm.model.tokenizer import Tokenizer
from tinyllm.paths import shipped_checkpoint
from tinyllm.sampling_params import SamplingParams

TOKENIZER = Tokenizer(shipped_checkpoint("target"))
V = TOKENIZER.vocab_size
TASKS = [draw_tool_task(Random(f"mask {place}"), num_calls=2, held_out_tools=True) for place in range(6)]


def definitions(task: Any) -> list[dict[str, Any]]:
    return list(task.dialogue().tools)


def a_call(tools: list[dict[str, Any]], number: int) -> list[int]:
    function = tools[number % len(tools)]["function"]
    values = {"string": 'Café "Ünal" 12\\', "number": -40.25}
    arguments = {name: values[schema["type"]] for name, schema in function["parameters"]["properties"].items()}
    return TOKENIZER.encode(ToolCall(function["name"], arguments).text, allow_special=True)


@pytest.mark.parametrize("number", range(len(TASKS)))
def test_a_mask_is_what_the_grammar_can_read(number: int) -> None:
    """Along a valid call, before each token, against every token of the vocabulary one by one."""
    tools = definitions(TASKS[number])
    mask, call = ToolCallMask(TOKENIZER, tools, V), a_call(tools, number)
    assert [call[0], call[-1]] == [mask.open, mask.close]
    for place in range(1, len(call)):
        allowed = mask(call[:place])
        assert allowed[call[place]]
        read = b"".join(TOKENIZER.token_bytes[token] for token in call[1:place])
        states = mask.grammar.read(mask.grammar.start, read)
        expected = {token for token, more in TOKENIZER.token_bytes.items() if mask.grammar.read(states, more)}
        if mask.grammar.complete(states):
            expected.add(mask.close)
        assert set(allowed.nonzero().flatten().tolist()) == expected


def test_outside_of_calls_all_is_allowed() -> None:
    tools = definitions(TASKS[0])
    mask, call = ToolCallMask(TOKENIZER, tools, V), a_call(tools, 0)
    words = TOKENIZER.encode("Let me see.")
    assert mask([]).all()
    assert mask(words).all()
    assert mask(call).all()
    assert mask([*call, *words]).all()
    assert torch.equal(mask([*words, call[0]]), mask([*call, call[0]]))  # a second call begins like the first
    assert not mask([call[0]]).all()


def test_tokens_and_their_bytes() -> None:
    text = "naïve 日本 \U0001f600\x00\n"
    ids = TOKENIZER.encode(text)
    assert b"".join(TOKENIZER.token_bytes[token] for token in ids) == text.encode()
    assert {bytes([byte]) for byte in range(256)} <= set(TOKENIZER.token_bytes.values())
    assert not {control_token(TOKENIZER, token) for token in (OPEN, CLOSE, "<|im_end|>")} & set(TOKENIZER.token_bytes)


def test_a_tokenizer_without_calls_is_refused() -> None:
    with pytest.raises(RequestError, match="no control token <call>"):
        control_token(TOKENIZER, "<call>")


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_every_call_of_the_shipped_model_is_valid(temperature: float) -> None:
    """At a temperature at which it writes nonsense otherwise; several requests with tools of their own in one batch."""
    llm = LLM(dtype="float32", device="cpu")
    prompts, params = [], []
    for place, task in enumerate(TASKS):
        tools = definitions(task)
        messages = [{"role": "user", "content": task.question}]
        prompts.append([*TOKENIZER.apply_chat_template(messages, tools), control_token(TOKENIZER, OPEN)])
        mask = ToolCallMask(TOKENIZER, tools, llm.model.config.vocab_size)
        begun = Begun(mask)
        params.append(SamplingParams(temperature=temperature, max_tokens=150, seed=place, allowed_tokens=begun))
    outputs = llm.generate(prompts, params)
    ended = 0
    for task, output in zip(TASKS, outputs, strict=True):
        text = TOKENIZER.decode(output.outputs[0].token_ids, skip_special=False)
        if CLOSE not in text:
            continue
        ended += 1
        first = parse_tool_calls(OPEN + text)[0]
        problem = first.error or task.dialogue().toolbox.problem(first.name, first.arguments)
        assert not problem, text
    assert ended >= len(TASKS) // 2


class Begun:
    """A mask for an output whose call was begun by the prompt."""

    def __init__(self, mask: ToolCallMask) -> None:
        self.mask = mask

    def __call__(self, output: tuple[int, ...]) -> torch.Tensor:
        return self.mask((self.mask.open, *output))
