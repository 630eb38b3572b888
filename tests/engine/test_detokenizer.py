"""Pieces of text are whole characters and add up to the text of all tokens, however characters fall on tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import NumberTokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tinyllm.engine.detokenizer import REPLACEMENT, Detokenizer

#: One token for each byte, decoded as Qwen's tokenizer decodes.
BYTES = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
BYTES.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
BYTES.decoder = decoders.ByteLevel()


def decode(token_ids: Sequence[int]) -> str:
    return BYTES.decode(list(token_ids))


def pieces(token_ids: Sequence[int], decode: Callable[[Sequence[int]], str], at_once: int = 1) -> list[str]:
    """What comes out as the tokens come in, some at a time."""
    detokenizer = Detokenizer(decode)
    groups = [token_ids[start : start + at_once] for start in range(0, len(token_ids), at_once)]
    return [*(detokenizer.add(group) for group in groups), detokenizer.finish()]


@given(st.text(), st.integers(1, 7))
def test_characters_come_whole(text: str, at_once: int) -> None:
    token_ids = BYTES.encode(text).ids
    got = pieces(token_ids, decode, at_once)
    assert "".join(got) == text
    if REPLACEMENT not in text:
        assert not any(REPLACEMENT in piece for piece in got)


@given(st.lists(st.integers(0, 255)), st.integers(1, 4))
def test_bytes_that_are_no_text_add_up_too(token_ids: list[int], at_once: int) -> None:
    assert "".join(pieces(token_ids, decode, at_once)) == decode(token_ids)


@given(st.lists(st.integers(0, 999)))
def test_a_tokens_text_may_depend_on_the_one_before(token_ids: list[int]) -> None:
    tokenizer = NumberTokenizer()
    assert "".join(pieces(token_ids, tokenizer.decode)) == tokenizer.decode(token_ids)


def test_half_a_character_waits() -> None:
    euro = BYTES.encode("a\u20acb").ids
    assert pieces(euro, decode) == ["a", "", "", "\u20ac", "b", ""]
    assert pieces(euro[:3], decode) == ["a", "", "", REPLACEMENT]


@pytest.mark.parametrize("count", [10, 1000])
def test_the_window_stays_small(count: int) -> None:
    longest = 0

    def measure(token_ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(token_ids))
        return decode(token_ids)

    assert "".join(pieces(BYTES.encode("\u20ac" * count).ids, measure)) == "\u20ac" * count
    assert longest == 6
