"""The tokenizer that training makes: every text comes back, control tokens are safe, the chat format is Qwen3's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from data.tasks.copying import copying
from data.tasks.talk import free_text, talk
from data.tokenizer import CONTROL_TOKENS, MARKS, SPECIAL_TOKENS, VOCAB_SIZE, train_tokenizer
from tinyllm.model.tokenizer import Tokenizer

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
ASKED: dict[str, Any] = {"role": "user", "content": "How many people live in Velmora, and what is 3 * 7?"}
SEARCH: dict[str, Any] = {
    "type": "function",
    "function": {"name": "search", "arguments": {"query": 'Velmora "old town" é'}},
}
CALCULATE = {"type": "function", "function": {"name": "calculate", "arguments": {"expression": "3 * 7"}}}
CALLS: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [SEARCH, CALCULATE]}
RESULTS = [{"role": "tool", "content": "Some 4210 people live there."}, {"role": "tool", "content": "21"}]
ANSWER = {"role": "assistant", "content": "The population of Velmora is 4210, and 3 * 7 is 21."}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Runs a {name}.",
            "parameters": {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]},
        },
    }
    for name, argument in (("search", "query"), ("calculate", "expression"))
]
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    "one question": ([ASKED], None),
    "with a system prompt": ([SYSTEM, ASKED, ANSWER, ASKED], None),
    "with tools": ([ASKED], TOOLS),
    "with tools and a system prompt": ([SYSTEM, ASKED], TOOLS),
    "a call": ([ASKED, {**CALLS, "tool_calls": [SEARCH]}], TOOLS),
    "a call after some words": ([ASKED, {**CALLS, "content": "Let me look.", "tool_calls": [SEARCH]}], TOOLS),
    "a result": ([ASKED, {**CALLS, "tool_calls": [SEARCH]}, RESULTS[0]], TOOLS),
    "calls at once": ([SYSTEM, ASKED, CALLS, *RESULTS, ANSWER], TOOLS),
    "calls without the word function": ([ASKED, {**CALLS, "tool_calls": [SEARCH["function"]]}], TOOLS),
    "no content beside the call": ([ASKED, {**CALLS, "content": None}, *RESULTS], TOOLS),
}
# As published with Qwen3-4B-Instruct-2507.
QWEN3_TEXT = """\
<|im_start|>system
You are a helpful assistant.

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
SEARCH
CALCULATE
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
<|im_start|>user
How many people live in Velmora, and what is 3 * 7?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "search", "arguments": {"query": "Velmora \\"old town\\" é"}}
</tool_call>
<tool_call>
{"name": "calculate", "arguments": {"expression": "3 * 7"}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
Some 4210 people live there.
</tool_response>
<tool_response>
21
</tool_response><|im_end|>
<|im_start|>assistant
The population of Velmora is 4210, and 3 * 7 is 21.<|im_end|>
"""

# Any character but the surrogates, which are no text; and pieces from which a control token could be put together.
any_text = st.lists(
    st.one_of(
        st.text(max_size=8), st.sampled_from([*CONTROL_TOKENS, "<|", "im_end", "|>", "<", "/", "tool_call", ">"])
    ),
    max_size=12,
).map("".join)


def texts() -> Iterator[str]:
    rng = Random(0)
    for _ in range(600):
        yield free_text(rng).text
        for sample in (talk(rng), copying(rng, 1)):
            yield from (message["content"] for message in sample.messages)
    # Text that spells the control tokens must not make them reachable.
    yield from (" ".join(CONTROL_TOKENS) for _ in range(200))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(texts(), folder, max_length=2048)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def test_training_again_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    train_tokenizer(texts(), tmp_path, max_length=2048)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_sizes_and_control_tokens(tokenizer: Tokenizer, theirs: Any) -> None:
    assert tokenizer.vocab_size == len(theirs) == VOCAB_SIZE <= 4096
    assert theirs.convert_tokens_to_ids(list(CONTROL_TOKENS)) == list(range(len(CONTROL_TOKENS)))
    assert set(theirs.all_special_tokens) <= set(SPECIAL_TOKENS)
    assert (theirs.eos_token, theirs.pad_token, theirs.model_max_length) == ("<|im_end|>", "<|endoftext|>", 2048)
    assert tokenizer.eos_token_ids == (CONTROL_TOKENS.index("<|im_end|>"),)


@given(text=any_text)
def test_every_text_comes_back_without_control_tokens(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(len(CONTROL_TOKENS) <= i < VOCAB_SIZE for i in ids)


@given(text=any_text)
def test_encoding_is_transformers(tokenizer: Tokenizer, theirs: Any, text: str) -> None:
    assert tokenizer.encode(text, allow_special=True) == theirs(text, add_special_tokens=False).input_ids


@given(number=st.integers(min_value=0))
def test_digits_stand_apart(tokenizer: Tokenizer, number: int) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer.encode(str(number))] == list(str(number))


@pytest.mark.parametrize("skip_special", [True, False])
def test_marks_survive_decoding(tokenizer: Tokenizer, theirs: Any, skip_special: bool) -> None:
    """A parser of tool calls reads decoded text, so only the ends of turns are left out."""
    ids = tokenizer.apply_chat_template([ASKED, CALLS, *RESULTS, ANSWER], tools=TOOLS)
    text = tokenizer.decode(ids, skip_special)
    assert text == theirs.decode(ids, skip_special_tokens=skip_special)
    assert '<tool_call>\n{"name": "search"' in text
    assert ("<|im_end|>" in text) != skip_special


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize(("messages", "tools"), CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_the_chat_template_is_rendered_as_transformers_does(
    tokenizer: Tokenizer,
    theirs: Any,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    add_generation_prompt: bool,
) -> None:
    expected = theirs.apply_chat_template(
        messages, tools=tools, add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=False
    )
    ours = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=add_generation_prompt)
    assert ours == expected


def test_the_chat_format_is_qwen3s(tokenizer: Tokenizer) -> None:
    messages, tools = CONVERSATIONS["calls at once"]
    ids = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=False)
    search, calculate = (json.dumps(tool) for tool in TOOLS)
    expected = QWEN3_TEXT.replace("SEARCH", search, 1).replace("CALCULATE", calculate, 1)
    assert tokenizer.decode(ids, skip_special=False) == expected


def test_words_before_a_call_stand_on_a_line_of_their_own(tokenizer: Tokenizer) -> None:
    messages, _ = CONVERSATIONS["a call after some words"]
    text = tokenizer.decode(tokenizer.apply_chat_template(messages, add_generation_prompt=False), skip_special=False)
    assert '<|im_start|>assistant\nLet me look.\n<tool_call>\n{"name": "search", ' in text


@given(content=any_text)
def test_what_messages_spell_is_never_a_control_token(tokenizer: Tokenizer, content: str) -> None:
    call = {"type": "function", "function": {"name": content, "arguments": {"query": content}}}
    tool = {"type": "function", "function": {"name": "search", "description": content}}

    def control_tokens(text: str) -> list[int]:
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": text},
            {"role": "user", "content": text},
            {"role": "assistant", "content": "Well." + text, "tool_calls": [call if text else SEARCH]},
            {"role": "tool", "content": text},
        ]
        ids = tokenizer.apply_chat_template(messages, tools=[tool if text else TOOLS[0]])
        return [i for i in ids if i < len(CONTROL_TOKENS)]

    assert control_tokens(content) == control_tokens("")


def test_only_the_marks_are_not_special(folder: Path) -> None:
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    assert tuple(token["content"] for token in added if not token["special"]) == MARKS
    assert tuple(token["content"] for token in added) == CONTROL_TOKENS
