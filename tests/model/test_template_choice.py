"""Which chat template of a checkpoint counts, and what a template can do, against transformers."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support.conversations import TOOLS, write_tokenizer
from transformers import AutoTokenizer

from tinyllm.errors import CheckpointError, RequestError
from tinyllm.model.tokenizer import Tokenizer

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Yes. "}]
NAMED = [
    {"name": "default", "template": "default"},
    {"name": "tool_use", "template": "with tools"},
    {"name": "rag", "template": "with documents"},
]


def both(folder: Path, tools: list[Any] | None = None) -> tuple[str, str]:
    """What is rendered here and by transformers."""
    tokenizer, theirs = Tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(MESSAGES, tools, add_generation_prompt=False)
    return tokenizer.decode(ids, skip_special=False), theirs.apply_chat_template(MESSAGES, tools=tools, tokenize=False)


@pytest.mark.parametrize(
    ("tools", "expected"),
    [(None, "default"), ([], "with tools"), ([TOOLS[0]], "with tools")],
    ids=["no", "none", "one"],
)
def test_a_list_of_templates_with_names(tmp_path: Path, tools: list[Any] | None, expected: str) -> None:
    write_tokenizer(tmp_path, chat_template=NAMED)
    assert both(tmp_path, tools) == (expected, expected)


@pytest.mark.parametrize("tools", [None, [TOOLS[0]]], ids=["no tools", "tools"])
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["chat_template"], ("file chat_template", "file chat_template")),
        (["chat_template", "additional_chat_templates/tool_use"], ("file chat_template", "file tool_use")),
        (["chat_template", "additional_chat_templates/rag"], ("file chat_template", "file chat_template")),
    ],
)
def test_templates_in_files_come_before_those_in_the_config(
    tmp_path: Path, files: list[str], expected: tuple[str, str], tools: list[Any] | None
) -> None:
    write_tokenizer(tmp_path, chat_template=NAMED)
    for name in files:
        (tmp_path / f"{name}.jinja").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jinja").write_text(f"file {Path(name).name}\n")
    assert both(tmp_path, tools) == (expected[bool(tools)],) * 2


def test_no_template_of_the_name_default(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, chat_template=NAMED[1:])
    assert Tokenizer(tmp_path).apply_chat_template(MESSAGES, [TOOLS[0]])
    with pytest.raises(CheckpointError, match=r"has the chat templates rag, tool_use and none of the name default"):
        Tokenizer(tmp_path).apply_chat_template(MESSAGES)


@pytest.mark.parametrize("entry", [3, ["default"], [{"name": "default"}], [{"name": None, "template": "x"}]])
def test_an_entry_that_is_no_template(tmp_path: Path, entry: object) -> None:
    write_tokenizer(tmp_path, chat_template=entry)
    with pytest.raises(
        CheckpointError, match=r"tokenizer_config\.json: chat_template is .*; expected a template, or a"
    ):
        Tokenizer(tmp_path).apply_chat_template(MESSAGES)


@pytest.mark.parametrize(
    "source",
    [
        "{{ strftime_now('%Y-%m') }}",
        "{% for m in messages %}{% generation %}{% set x = m.content %}{{ x }}{% endgeneration %}{{ x }}{% endfor %}",
        "{%- generation -%}  a  {%- endgeneration -%} b",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% break %}{% endfor %}",
        "{{ {'b': ['ü', 1.5, none, '<&>'], 'a': true} | tojson }}",
        "{{ {'b': ['ü', 1.5, none], 'a': true} | tojson(indent=2, sort_keys=true, ensure_ascii=true) }}",
        "{{ {'b': ['ü'], 'a': true} | tojson(separators=(',', ':')) }}{{ ['ü'] | tojson(true, 1) }}",
        "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token }}{{ sep_token }}{{ documents is none }}",
        "{{ tools is none }}{{ tools is defined }}{{ add_generation_prompt }}{{ messages | length }}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "{{ dict(a=1) }}{{ dict.fromkeys(['a']) }}{{ namespace(self=1).self }}",
        "  {% if true %}\n  indented\n  {% endif %}\n\nend\n\n",
    ],
)
def test_what_a_template_can_do(tmp_path: Path, source: str) -> None:
    write_tokenizer(tmp_path, chat_template=source, bos_token={"__type": "AddedToken", "content": "<s>"})
    ours, theirs = both(tmp_path)
    assert ours == theirs != ""


def test_the_present_time_is_that_of_the_machine(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, chat_template="{{ strftime_now('%Y-%m-%d') }}")
    before = f"{datetime.now():%Y-%m-%d}"
    assert before <= both(tmp_path)[0] <= f"{datetime.now():%Y-%m-%d}"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("{{ raise_exception('not so') }}", "not so"),
        ("{{ 1 // 0 }}", "zero"),
        ("{{ messages[5].content.strip() }}", "has no element 5"),
        ("{{ namespace(_x=1) }}", "_x"),
        ("{% set ns = namespace() %}{% set ns._x = 1 %}", "_x"),
        ("{{ messages.append(1) }}", "append"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_template_that_refuses_or_fails(tmp_path: Path, source: str, complaint: str) -> None:
    write_tokenizer(tmp_path, chat_template=source)
    with pytest.raises(RequestError, match=f"the chat template of .* refuses these messages: .*{complaint}"):
        Tokenizer(tmp_path).apply_chat_template(MESSAGES)
    with pytest.raises(Exception, match=complaint):
        AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(MESSAGES, tokenize=False)


def test_no_message(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, chat_template="x")
    with pytest.raises(RequestError, match="there is no message; give a list"):
        Tokenizer(tmp_path).apply_chat_template([])


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    **{"strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": None},
    **{"pad_id": 3, "pad_type_id": 0, "pad_token": "<|endoftext|>"},
}


@pytest.mark.parametrize("left", [{"truncation": TRUNCATION}, {"padding": PADDING}], ids=["truncation", "padding"])
def test_what_training_left_in_the_tokenizer_neither_cuts_nor_pads(tmp_path: Path, left: dict[str, Any]) -> None:
    write_tokenizer(tmp_path, chat_template="{{ bos_token }}{% for m in messages %}{{ m.content }}</s>{% endfor %}")
    clean = Tokenizer(tmp_path)
    edit(tmp_path / "tokenizer.json", **left)
    tokenizer, theirs = Tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    text = "How many people live in Velmora?<s>"
    for allow_special in (True, False):
        ids = tokenizer.encode(text, allow_special)
        assert ids == clean.encode(text, allow_special)
        assert ids == theirs(text, add_special_tokens=False, split_special_tokens=not allow_special).input_ids
    ids = tokenizer.apply_chat_template(MESSAGES)
    assert ids == clean.apply_chat_template(MESSAGES)
    assert ids == theirs.apply_chat_template(MESSAGES, tokenize=True, return_dict=False)
