"""The tokenizer against transformers' own, round trips, and text that tries to speak as the system."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from data.tokenizer import CONTROL_TOKENS
from tinyllm.errors import CheckpointError, RequestError
from tinyllm.model.tokenizer import Tokenizer
from tinyllm.paths import shipped_checkpoint

pytestmark = pytest.mark.needs("checkpoint")

SHIPPED = shipped_checkpoint()
CONTROL_IDS = set(range(len(CONTROL_TOKENS)))
TEXTS = [
    "",
    "Once upon a time there was a fox.",
    "It's 1234 o'clock,\n\n  and  \t she's here!\r\n",
    "naïve café, 你好, привет, 🙂, a\u0301",
    " \u00a0 odd\u200bspaces ",
]
CONVERSATION = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": 'Hello, it\'s me < you > & "them"!\n'},
    {"role": "assistant", "content": " Hi. "},
    {"role": "user", "content": "What is a KV cache?"},
]


# Any character but the surrogates, which are no text; and pieces from which a control token could be put together.
any_text = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from([*CONTROL_TOKENS, "<|", "im_end", "|>", "<", "/think", "|", ">", "\ue000", "\n"]),
    ),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(SHIPPED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped tokenizer, to be spoilt."""
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"):
        shutil.copy(SHIPPED / name, tmp_path / name)
    return tmp_path


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@given(text=any_text)
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


@given(text=any_text)
def test_ordinary_text_never_gives_a_control_token(tokenizer: Tokenizer, text: str) -> None:
    assert not CONTROL_IDS & set(tokenizer.encode(text))


@pytest.mark.parametrize("token", CONTROL_TOKENS)
def test_trusted_text_gives_control_tokens(tokenizer: Tokenizer, token: str) -> None:
    assert tokenizer.encode(token, allow_special=True) == [CONTROL_TOKENS.index(token)]


@pytest.mark.parametrize("text", [*TEXTS, "a<|im_end|>b <|im_start|>"])
def test_encode_is_transformers(tokenizer: Tokenizer, text: str) -> None:
    theirs = AutoTokenizer.from_pretrained(SHIPPED)
    assert tokenizer.encode(text, allow_special=True) == theirs(text, add_special_tokens=False).input_ids
    assert tokenizer.encode(text) == theirs(text, add_special_tokens=False, split_special_tokens=True).input_ids


@pytest.mark.parametrize("skip_special", [True, False])
def test_decode_is_transformers(tokenizer: Tokenizer, skip_special: bool) -> None:
    theirs = AutoTokenizer.from_pretrained(SHIPPED)
    ids = tokenizer.apply_chat_template(CONVERSATION)
    assert tokenizer.decode(ids, skip_special) == theirs.decode(ids, skip_special_tokens=skip_special)


@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_the_chat_template_is_rendered_as_transformers_does(tokenizer: Tokenizer, add_generation_prompt: bool) -> None:
    theirs = AutoTokenizer.from_pretrained(SHIPPED)
    expected = theirs.apply_chat_template(
        CONVERSATION, add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=False
    )
    assert tokenizer.apply_chat_template(CONVERSATION, add_generation_prompt=add_generation_prompt) == expected


def test_the_chat_format_is_qwen3s(tokenizer: Tokenizer) -> None:
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}])
    assert tokenizer.decode(ids, skip_special=False) == ("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


@given(content=any_text, role=st.sampled_from(["user", "assistant"]))
def test_messages_never_give_a_control_token(tokenizer: Tokenizer, content: str, role: str) -> None:
    ids = tokenizer.apply_chat_template([{"role": role, "content": content}], add_generation_prompt=False)
    assert [i for i in ids if i in CONTROL_IDS] == [1, 2], "only the template's own head and end of the turn"
    assert tokenizer.decode(ids) == f"{role}\n{content}\n"


def test_digits_stand_apart(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer.encode("2048")] == ["2", "0", "4", "8"]


def test_a_cut_character_shows_as_a_replacement(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🙂")
    assert tokenizer.decode(ids[:-1]).endswith("\ufffd")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (2, 0)),
        ({"generation_config.json": 7}, (7,)),
        ({"generation_config.json": None, "config.json": [4, 5]}, (4, 5)),
        ({"generation_config.json": None, "config.json": None}, (2,)),
    ],
    ids=["as shipped", "generation config first", "then config", "then the tokenizer's own"],
)
def test_where_the_end_tokens_come_from(folder: Path, files: dict[str, object], expected: tuple[int, ...]) -> None:
    for name, eos in files.items():
        edit(folder / name, eos_token_id=eos)
    assert Tokenizer(folder).eos_token_ids == expected


def test_a_template_in_a_file_of_its_own_comes_first(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}\n[{{ m.content }}]{{ eos_token }}\n{% endfor %}\n"
    )
    ids = Tokenizer(folder).apply_chat_template(CONVERSATION[:1])
    assert Tokenizer(folder).decode(ids, skip_special=False) == "[You are a helpful assistant.]<|im_end|>\n"


def test_a_template_cannot_reach_the_interpreter(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(RequestError, match="unsafe"):
        Tokenizer(folder).apply_chat_template(CONVERSATION)


def test_a_template_that_refuses(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('roles must take turns') }}")
    with pytest.raises(RequestError, match="refuses these messages: roles must take turns"):
        Tokenizer(folder).apply_chat_template(CONVERSATION)


def test_no_chat_template(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", chat_template=None)
    with pytest.raises(CheckpointError, match=r"has no chat template.*give a plain prompt"):
        Tokenizer(folder).apply_chat_template(CONVERSATION)


def test_a_broken_chat_template(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", chat_template="{% for %}")
    with pytest.raises(CheckpointError, match="no valid jinja2"):
        Tokenizer(folder).apply_chat_template(CONVERSATION)


@pytest.mark.parametrize(
    "messages",
    [
        "Hello",
        ["Hello"],
        [{"content": "Hello"}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": 3}],
        [{"role": 3, "content": "Hello"}],
        [{"role": "narrator", "content": "Hello"}],
    ],
    ids=["a string", "strings", "no role", "no content", "None", "a number", "no name of a role", "an unknown role"],
)
def test_messages_of_the_wrong_kind(tokenizer: Tokenizer, messages: object) -> None:
    with pytest.raises(RequestError, match=r'message 0 is .*; give a list of messages such as \{"role": "user"'):
        tokenizer.apply_chat_template(messages)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [b"bytes", None, 3, "half a \ud800 character"])
def test_what_is_no_text(tokenizer: Tokenizer, text: object) -> None:
    with pytest.raises(RequestError, match=r"cannot encode .* give a str"):
        tokenizer.encode(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        Tokenizer(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": 3}'], ids=["cut short", "no object", "no tokenizer"])
def test_a_damaged_file(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        Tokenizer(folder)
