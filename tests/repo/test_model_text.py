"""The model's text goes out as it was written: to a pipe byte for byte, to a terminal without what it would obey."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_llm import ScriptedEngine
from support.models import make_engine, tiny_model

from tinyllm.errors import RequestError
from tinyllm.model_text import ModelText, stream, visible, write_continuations
from tinyllm.sampling_params import SamplingParams


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_pipe_gets_the_text_byte_for_byte(text: str) -> None:
    raw = io.BytesIO()
    out = ModelText(io.TextIOWrapper(raw, encoding="utf-8", newline="\n"))
    for letter in text:
        out.write(letter, dim=True)
    assert raw.getvalue() == text.encode()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_terminal_gets_nothing_that_it_obeys_and_loses_nothing(text: str) -> None:
    shown = visible(text)
    assert not [letter for letter in shown if ord(letter) < 32 and letter not in "\n\t"]
    assert not [letter for letter in shown if 0x7F <= ord(letter) < 0xA0]
    kept = [letter for letter in text if letter in "\n\t" or not (ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0)]
    rest = iter(shown)
    assert all(letter in rest for letter in kept), "every other character is there, in this order"


def test_control_characters_have_the_forms_that_less_gives_them() -> None:
    assert visible("\x1b[31m\x07\r\x00\x7f\x9b\t\n") == "^[[31m^G^M^@^?<U+009B>\t\n"


@pytest.mark.parametrize(("term", "expected"), [("dumb", "a^[b"), ("xterm", "\x1b[2ma^[b\x1b[0m")])
def test_only_a_terminal_that_can_shows_the_prompt_set_back(
    monkeypatch: pytest.MonkeyPatch, term: str, expected: str
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    ModelText().write("a\x1bb", dim=True)
    assert screen.getvalue() == expected


def test_each_piece_is_out_before_the_next_step() -> None:
    engine, out = ScriptedEngine(), io.StringIO()
    seen = []
    step = engine.step
    engine.step = lambda: (seen.append(out.getvalue()), step())[1]
    write_continuations(engine, "user: one", SamplingParams(), ModelText(out))
    assert seen == ["user: one", "user: one[1] ", "user: one[1] one"]
    assert out.getvalue() == "user: one[1] one\n"


def test_continuations_that_come_mixed_are_written_in_turn() -> None:
    out = io.StringIO()
    write_continuations(ScriptedEngine(), "say odd", SamplingParams(n=3), ModelText(out))
    assert out.getvalue() == "say odd:apple: [bold]x[/bold]\t\x1b[2J\x9b2Kend  \n\n" * 3


def test_a_request_that_is_refused_writes_nothing() -> None:
    out = io.StringIO()
    with pytest.raises(RequestError):
        write_continuations(ScriptedEngine(), "", SamplingParams(), ModelText(out))
    assert out.getvalue() == ""


def test_the_stream_of_an_engine_is_its_text_and_ends_with_its_reader() -> None:
    engine = make_engine(tiny_model())
    params = SamplingParams(max_tokens=6, n=2, temperature=1.0, seed=3)
    texts = ["", ""]
    for delta in stream(engine, [1, 2, 3], params):
        texts[delta.index] += delta.text
    engine.add_request([1, 2, 3], params)
    outputs = []
    while engine.has_unfinished:
        outputs += engine.step()
    assert texts == [output.text for output in outputs[0].outputs]

    deltas = stream(engine, [4, 5], SamplingParams(max_tokens=50))
    next(deltas)
    deltas.close()
    assert not engine.has_unfinished
