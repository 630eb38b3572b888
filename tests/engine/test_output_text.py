"""Stop strings across token borders, and what a stream may show, against searching the whole text each time."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tinyllm.engine.output_text import OutputText

#: Tokens of a few letters each, so that stop strings over the same letters are found often, overlapping and nested.
PIECES = ["a", "b", "ab", "ba", "aab", "c", "bca", "  "]


def decode(token_ids: Sequence[int]) -> str:
    return "".join(PIECES[token] for token in token_ids)


def first_cut(token_ids: Sequence[int], stop: Sequence[str]) -> tuple[int, str] | None:
    """By brute force: after how many tokens the output ends, and its text then."""
    for count in range(1, len(token_ids) + 1):
        text = decode(token_ids[:count])
        starts = [text.find(string) for string in stop if string in text]
        if starts:
            return count, text[: min(starts)]
    return None


@given(
    st.lists(st.integers(0, len(PIECES) - 1), max_size=25),
    st.lists(st.text("abc ", min_size=1, max_size=5), max_size=3),
)
def test_stops_and_streams(token_ids: list[int], stop: list[str]) -> None:
    output = OutputText(decode, stop)
    shown: list[str] = []
    count = 0
    for token_id in token_ids:
        count += 1
        output.push(token_id)
        output.update()
        if output.stopped:
            break
        shown.append(output.take())
    output.finish()
    shown.append(output.take())
    expected = first_cut(token_ids, stop)
    assert (count, output.text) == (expected or (len(token_ids), decode(token_ids)))
    assert output.stopped == (expected is not None)
    assert "".join(shown) == output.text, "nothing shown is ever taken back, and nothing is lost"


def test_only_what_may_become_a_stop_string_is_kept_back() -> None:
    output = OutputText(lambda ids: "".join(map(chr, ids)), ["END", "DOT."])
    shown = []
    for letter in "xE EN DOTS END":
        output.push(ord(letter))
        output.update()
        shown.append(output.take())
    assert shown == ["x", "", "E ", "", "", "EN ", "", "", "", "DOTS", " ", "", "", ""]
    assert output.text == "xE EN DOTS "


def test_a_stop_string_that_came_too_early_is_let_pass() -> None:
    output = OutputText(decode, ["ab"])
    output.push(2)
    output.update(may_stop=False)
    output.push(5)
    output.update()
    assert (output.text, output.stopped) == ("abc", False)
    output.push(2)
    output.update()
    assert (output.text, output.stopped) == ("abc", True)


HALF = [b"a", b"END\xe2", b"\x82\xac", b"\xff", b"EN", b"D\xf0\x9f", b"\xef\xbf\xbd"]


def decode_half(token_ids: Sequence[int]) -> str:
    return b"".join(HALF[token] for token in token_ids).decode(errors="replace")


@given(st.lists(st.integers(0, len(HALF) - 1), max_size=25))
def test_a_stop_string_before_half_a_character_ends_the_output_at_once(token_ids: list[int]) -> None:
    output = OutputText(decode_half, ["END"])
    count = 0
    for token_id in token_ids:
        count += 1
        output.push(token_id)
        output.update()
        if output.stopped:
            break
    output.finish()
    cut = decode_half(token_ids).find("END")
    assert output.text == (decode_half(token_ids) if cut < 0 else decode_half(token_ids)[:cut])
    assert output.stopped == (cut >= 0)
    if output.stopped:
        assert "END" not in decode_half(token_ids[: count - 1])


def test_a_stop_string_is_found_in_what_was_kept_back_to_the_end() -> None:
    for may_stop in (True, False):
        output = OutputText(decode_half, ["a\ufffd"])
        for token_id in (0, 6):
            output.push(token_id)
            output.update()
        assert not output.stopped, "the last character may be half of another one"
        output.finish(may_stop)
        assert (output.stopped, output.text) == (may_stop, "" if may_stop else "a\ufffd")


def test_nothing_is_decoded_before_it_is_needed() -> None:
    calls: list[Sequence[int]] = []
    output = OutputText(lambda ids: calls.append(list(ids)) or decode(ids))  # type: ignore[func-returns-value]
    for token_id in range(5):
        output.push(token_id)
    assert not calls
    output.finish()
    assert output.text == decode(range(5))
