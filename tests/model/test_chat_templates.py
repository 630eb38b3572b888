"""Chat templates of many families, written anew by their features, against what transformers renders from them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.conversations import FAMILY_TOKENS, HARMLESS, HOSTILE, conversation, write_tokenizer
from support.conversations import TEMPLATES as FOLDER
from transformers import AutoTokenizer

from tinyllm.errors import RequestError
from tinyllm.model.chat_template import ChatTemplate, template_data
from tinyllm.model.tokenizer import Tokenizer

TEMPLATES = sorted(FOLDER.glob("*.jinja"))
HARMLESS_CONVERSATIONS = [conversation(Random(i), HARMLESS) for i in range(100)]
HOSTILE_CONVERSATIONS = [conversation(Random(i), (*HARMLESS, *HOSTILE)) for i in range(100, 200)]
NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<|endoftext|>"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("families")
    write_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def with_template(folder: Path, source: str) -> Tokenizer:
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    return Tokenizer(folder)


def their_prompt(theirs: Any, source: str, case: dict[str, Any], **options: Any) -> Any:
    """What transformers makes of a conversation; None where the template refuses it."""
    arguments = {"tools": case["tools"], "add_generation_prompt": case["add_generation_prompt"], **options}
    try:
        return theirs.apply_chat_template(case["messages"], chat_template=source, **arguments)
    except Exception:
        return None


def our_ids(tokenizer: Tokenizer, case: dict[str, Any]) -> list[int] | None:
    """The tokens of a conversation; None where the template refuses it."""
    try:
        return tokenizer.apply_chat_template(**case)
    except RequestError as error:
        if "refuses these messages" not in str(error):
            raise
        return None


def test_there_are_many_templates_and_conversations() -> None:
    assert len(TEMPLATES) >= 30
    assert len(HARMLESS_CONVERSATIONS) + len(HOSTILE_CONVERSATIONS) == 200


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_each_renders_as_in_transformers(theirs: Any, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    template = ChatTemplate(source, NAMED, path.name)
    refused = 0
    for case in HARMLESS_CONVERSATIONS + HOSTILE_CONVERSATIONS:
        expected = their_prompt(theirs, source, case, tokenize=False)
        if expected is None:
            refused += 1
            with pytest.raises(RequestError, match="refuses these messages"):
                template.render(template_data(**case))
        else:
            assert template.render(template_data(**case)) == expected
    assert refused < 180


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_harmless_conversations_have_the_tokens_of_transformers(folder: Path, theirs: Any, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tokenizer = with_template(folder, source)
    for case in HARMLESS_CONVERSATIONS[::4]:
        assert our_ids(tokenizer, case) == their_prompt(theirs, source, case, tokenize=True, return_dict=False)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_hostile_conversations_have_the_control_tokens_of_the_template(folder: Path, theirs: Any, path: Path) -> None:
    """transformers marks what a caller spells before it renders. That changes what some templates render, not more."""
    source = path.read_text(encoding="utf-8")
    tokenizer = with_template(folder, source)
    for case in HOSTILE_CONVERSATIONS[::3]:
        ids = our_ids(tokenizer, case)
        text = their_prompt(theirs, source, case, tokenize=False)
        sanitized = their_prompt(theirs, source, case, tokenize=True, return_dict=False, sanitize_control_tokens=True)
        if ids is None:
            assert text is None
        else:
            assert tokenizer.decode(ids, skip_special=False) == text
            their_text = theirs.decode(sanitized or [])
            if their_text == text:
                assert ids == sanitized
            elif their_text.split() == text.split():
                assert control_ids(ids) == control_ids(sanitized)


def control_ids(ids: list[int]) -> list[int]:
    return [i for i in ids if i < len(FAMILY_TOKENS)]
