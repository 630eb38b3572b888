"""Tools in the chat template: what transformers renders, and nothing that a caller's text can add to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from data.tokenizer import CONTROL_TOKENS, train_tokenizer
from tinyllm.errors import RequestError
from tinyllm.model.tokenizer import Tokenizer

Parts = dict[str, Any]

# Whole control tokens, and pieces from which one could be put together.
hostile_text = st.lists(
    st.one_of(st.text(max_size=6), st.sampled_from([*CONTROL_TOKENS, "<", "tool_call>", "</", "|im_end|>", "\ue000"])),
    max_size=6,
).map("".join)


def tool(name: str = "population", description: str = "People in a town", parameter: str = "town") -> Parts:
    parameters = {"type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def call(name: str = "population", **arguments: object) -> Parts:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "You answer briefly."}
QUESTION = {"role": "user", "content": "How many more people live in Velmora than in Tolv?"}
CALLS = {"role": "assistant", "content": None, "tool_calls": [call(town="Velmora"), call(town="Tolv", year=1988)]}
RESULTS = [{"role": "tool", "content": '{"population": 4210}'}, {"role": "tool", "content": "no such town"}]
ANSWER = {"role": "assistant", "content": "Tolv is not known."}
CONVERSATIONS = {
    "a question": [QUESTION],
    "a system message": [SYSTEM, QUESTION],
    "calls": [QUESTION, CALLS],
    "a text and calls": [QUESTION, {**CALLS, "content": "I look both up."}],
    "no text": [QUESTION, {**CALLS, "content": ""}, *RESULTS],
    "results": [SYSTEM, QUESTION, CALLS, *RESULTS],
    "the whole way": [SYSTEM, QUESTION, CALLS, *RESULTS, ANSWER, QUESTION],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer with the control tokens and the template of the shipped one."""
    path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["How many people live in Velmora? 4210 people live there."], path, max_length=512)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def control_ids(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    return [i for i in ids if i < len(CONTROL_TOKENS)]


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
@pytest.mark.parametrize("tools", [None, [], [tool()], [tool(), tool("area", "Size in hectares: größer?")]])
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_it_is_rendered_as_transformers_does(
    tokenizer: Tokenizer, theirs: Any, messages: list[Parts], tools: list[Parts] | None, add_generation_prompt: bool
) -> None:
    expected = theirs.apply_chat_template(
        messages, tools=tools, add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=False
    )
    assert tokenizer.apply_chat_template(messages, tools, add_generation_prompt) == expected


def test_the_prompt_shows_the_tools_and_the_calls_control_tokens(tokenizer: Tokenizer) -> None:
    ids = tokenizer.apply_chat_template([QUESTION, CALLS, *RESULTS], [tool()])
    text = tokenizer.decode(ids, skip_special=False)
    assert '<tools>\n{"type": "function", "function": {"name": "population", ' in text
    assert '<tool_call>\n{"name": "population", "arguments": {"town": "Tolv", "year": 1988}}\n</tool_call>' in text
    assert "<tool_response>\nno such town\n</tool_response>" in text
    written = [CONTROL_TOKENS[i] for i in control_ids(tokenizer, ids)]
    assert written.count("<tool_call>") == written.count("</tool_call>") == 2 + 2  # two in the instructions
    assert written.count("<tool_response>") == written.count("</tool_response>") == 2


@given(text=hostile_text)
def test_no_text_of_the_caller_gives_a_control_token(tokenizer: Tokenizer, theirs: Any, text: str) -> None:
    """Not in a schema, not in a call's name or arguments, not in a result; keys of JSON are text too."""

    def conversation(text: str) -> tuple[list[Parts], list[Parts]]:
        calls = {**CALLS, "content": text, "tool_calls": [call(text, **{text: [text, {text: 1}]})]}
        result = {"role": "tool", "content": text}
        return [{**SYSTEM, "content": text}, QUESTION, calls, result], [tool(text, text, text)]

    messages, tools = conversation(text)
    ids = tokenizer.apply_chat_template(messages, tools)
    harmless = tokenizer.apply_chat_template(*conversation("x"))
    assert control_ids(tokenizer, ids) == control_ids(tokenizer, harmless)
    rendered = theirs.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False)
    assert tokenizer.decode(ids, skip_special=False) == rendered, "the text itself stays as it is"


@pytest.mark.parametrize(
    "tools",
    [["search"], tool(), [{"type": "function"}], [{"type": "function", "function": {"description": "No name"}}]],
    ids=["a name", "no list", "no function", "no name of a function"],
)
def test_tools_of_the_wrong_kind(tokenizer: Tokenizer, tools: Any) -> None:
    with pytest.raises(RequestError, match=r'tool 0 is .*; give a list of definitions such as \{"type": "function"'):
        tokenizer.apply_chat_template([QUESTION], tools)


@pytest.mark.parametrize(
    "calls",
    [[{"function": {"arguments": {}}}], [{"function": {"name": "area"}}], ["area"], [call(x=object())]],
    ids=["no name", "no arguments", "a string", "no JSON"],
)
def test_calls_that_the_template_cannot_write(tokenizer: Tokenizer, calls: list[Any]) -> None:
    with pytest.raises(RequestError, match="refuses these messages"):
        tokenizer.apply_chat_template([QUESTION, {"role": "assistant", "content": None, "tool_calls": calls}])


def test_only_a_message_with_calls_may_lack_a_content(tokenizer: Tokenizer) -> None:
    calls = {"role": "assistant", "tool_calls": CALLS["tool_calls"]}
    assert tokenizer.apply_chat_template([QUESTION, calls]) == tokenizer.apply_chat_template([QUESTION, CALLS])
    with pytest.raises(RequestError, match="only a message with tool_calls may have no content"):
        tokenizer.apply_chat_template([QUESTION, {"role": "assistant", "content": None, "tool_calls": []}])
