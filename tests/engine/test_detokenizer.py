"""Pieces of text are whole characters and add up to the text of all tokens, however characters fall on tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import NumberTokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tinyllm.engine.detokenizer import REPLACEMENT, Detokenizer
from tinyllm.model.tokenizer import byte_letters

#: One token for each byte, decoded as Qwen's tokenizer decodes.
BYTES = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
BYTES.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
BYTES.decoder = decoders.ByteLevel()

#: How the tokenizer writes each byte.
LETTERS = {byte: letter for letter, byte in byte_letters().items()}


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


@given(
    st.lists(st.sampled_from([*b"a\xff\x80\xbf\xe2\x82\xac\xf0\x9f\x98\xc3\xef\xbd"]), max_size=60), st.integers(1, 11)
)
def test_long_runs_of_bytes_that_are_no_text_add_up(data: list[int], at_once: int) -> None:
    token_ids = [BYTES.token_to_id(LETTERS[byte]) for byte in data]
    assert "".join(pieces(token_ids, decode, at_once)) == decode(token_ids)


@pytest.mark.parametrize(
    "pattern", [b"\xff", b"\xe2", b"\xf0\x9f", b"\xe2\x82", b"\x80\xf0\x9f\x98", b"\xef\xbf\xbd"], ids=repr
)
def test_bytes_that_are_no_text_cost_no_more_the_longer_they_go_on(pattern: bytes) -> None:
    """The work is the number of tokens that are decoded, over all calls."""
    token_ids = [BYTES.token_to_id(LETTERS[byte]) for byte in pattern] * (3000 // len(pattern))
    work = 0

    def measure(token_ids: Sequence[int]) -> str:
        nonlocal work
        work += len(token_ids)
        return decode(token_ids)

    assert "".join(pieces(token_ids, measure)) == decode(token_ids)
    assert work < 60 * len(token_ids)


def test_what_comes_before_half_a_character_is_not_kept_back() -> None:
    def decode_words(token_ids: Sequence[int]) -> str:
        words = [b"The ", b"END\xe2", b"\x82", b"\xac."]
        return b"".join(words[token] for token in token_ids).decode(errors="replace")

    assert pieces([0, 1, 2, 3], decode_words) == ["The ", "END", "", "\u20ac.", ""]
    assert pieces([0, 1, 1, 1], decode_words) == ["The ", "END", "\ufffdEND", "\ufffdEND", "\ufffd"]
