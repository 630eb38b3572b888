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


def test_nothing_is_decoded_before_it_is_needed() -> None:
    calls: list[Sequence[int]] = []
    output = OutputText(lambda ids: calls.append(list(ids)) or decode(ids))  # type: ignore[func-returns-value]
    for token_id in range(5):
        output.push(token_id)
    assert not calls
    output.finish()
    assert output.text == decode(range(5))
