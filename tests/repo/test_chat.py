"""The conversation: what is kept, what is told, what a person can do at a terminal, and what a pipe gets."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pexpect
import pytest
import scripted_llm
from scripted_llm import ScriptedLLM

from tinyllm.chat import Chat
from tinyllm.sampling_params import SamplingParams


def talk(monkeypatch: pytest.MonkeyPatch, text: str, **params: Any) -> Chat:
    """Pipe a text into a chat."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    chat = Chat(ScriptedLLM(), SamplingParams(**{"max_tokens": 10, **params}))
    chat.run()
    return chat


def test_a_pipe_gets_the_answers_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(monkeypatch, "one\ntwo\nsay odd\nexit\nnever\n")
    captured = capsys.readouterr()
    assert captured.out == "[1] one\n[3] two\n:apple: [bold]x[/bold]\t\x1b[2J\x9b2Kend  \n\n"
    assert captured.err == ""


@pytest.mark.parametrize("word", ["exit", "quit", "/exit", "/quit", " Exit ", "QUIT"])
def test_a_word_leaves(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str) -> None:
    talk(monkeypatch, f"one\n{word}\ntwo\n")
    assert capsys.readouterr().out == "[1] one\n"


def test_an_empty_line_changes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    talk(monkeypatch, "one\n\n   \n\t\ntwo\n")
    assert capsys.readouterr().out == "[1] one\n[3] two\n"


def test_reset_starts_over(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    talk(monkeypatch, "one\n/reset\ntwo\n")
    captured = capsys.readouterr()
    assert captured.out == "[1] one\n[1] two\n"
    assert captured.err == "Started over.\n"


def test_help_and_unknown_commands_are_told_and_not_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(monkeypatch, "/help\n/rest\n/usr/bin/env is a path\n")
    captured = capsys.readouterr()
    assert captured.out == "[1] /usr/bin/env is a path\n"
    for words in ("/reset", "Ctrl-D", "Ctrl-C", '"""', "there is no /rest here. Did you mean /reset?"):
        assert words in captured.err


@pytest.mark.parametrize("text", ['"""a\nb\n\nc"""\n', '"""\na\nb\n\nc\n"""\n', '"""a\nb\n\nc'])
def test_a_message_of_several_lines(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert talk(monkeypatch, text).messages[0] == {"role": "user", "content": "a\nb\n\nc"}


def test_a_conversation_that_is_too_long_is_told_and_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = talk(monkeypatch, "".join(f"line {n} of a talk\n" for n in range(4)))
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 2, "each time that more is left out"
    assert "100 tokens" in captured.err
    assert "oldest 2 messages" in captured.err
    assert "oldest 4 messages" in captured.err
    assert "/reset" in captured.err
    assert len(chat.messages) == 8
    assert chat.messages[0] == {"role": "user", "content": "line 0 of a talk"}
    assert captured.out == "".join(f"[{seen}] line {n} of a talk\n" for n, seen in enumerate([1, 3, 3, 3]))


def test_a_line_that_is_too_long_alone_is_told_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = talk(monkeypatch, f"one\n{'x' * 200}\ntwo\n")
    captured = capsys.readouterr()
    assert captured.out == "[1] one\n[3] two\n"
    assert "This line alone has 207 tokens" in captured.err
    assert [each["content"] for each in chat.messages] == ["one", "[1] one", "two", "[3] two"]


@pytest.mark.parametrize(
    ("max_tokens", "words"), [(10, "cut after 10 tokens; --max-tokens allows more"), (99, "at most 100 tokens")]
)
def test_an_answer_that_is_cut_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], max_tokens: int, words: str
) -> None:
    def cut(*_: object) -> Iterator[Any]:
        yield SimpleNamespace(text="abc", error="", finish_reason="length")

    monkeypatch.setattr("tinyllm.chat.stream", cut)
    chat = talk(monkeypatch, "one\n", max_tokens=max_tokens)
    assert words in capsys.readouterr().err
    assert chat.messages[-1]["content"] == "abc"


def test_an_answer_that_fails_leaves_the_conversation_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> Iterator[Any]:
        yield SimpleNamespace(text="", error="the logits hold NaN", finish_reason="error")

    monkeypatch.setattr("tinyllm.chat.stream", fail)
    assert talk(monkeypatch, "one\n").messages == []
    assert "the logits hold NaN" in capsys.readouterr().err


def test_the_banner_says_what_a_model_that_ships_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyllm.paths import shipped_checkpoint

    chat = talk(monkeypatch, "")
    other = chat.banner()
    assert "scripted: 5.7 million parameters" in other
    assert "passages" not in other
    chat.llm.tokenizer.folder = shipped_checkpoint()
    shipped = chat.banner()
    for words in ("target: a very small language model", "passages", "no general assistant", "/help", "exit", "Ctrl-D"):
        assert words in shipped


# ---------------------------------------------------------------- at a terminal


@pytest.fixture
def terminal() -> Iterator[pexpect.spawn]:
    """`tinyllm chat` in a pseudo-terminal."""
    child = pexpect.spawn(
        sys.executable, [scripted_llm.__file__, "chat"], encoding="utf-8", timeout=120, dimensions=(24, 40)
    )
    yield child
    child.close(force=True)


def test_a_person_at_a_terminal(terminal: pexpect.spawn) -> None:
    terminal.expect("million parameters")
    terminal.expect("To leave: exit, or Ctrl-D")
    terminal.expect("you: ")
    terminal.sendline("say odd")
    terminal.expect_exact("model: :apple: [bold]x[/bold]\t^[[2J<U+009B>2Kend  \r\n\r\n")
    terminal.expect("you: ")
    terminal.sendline("")
    terminal.expect("you: ")
    terminal.sendline("please count")
    terminal.expect("model: 0 1 2 3 ")
    terminal.sendintr()
    terminal.expect(r"\(stopped\)")
    terminal.expect("you: ")
    terminal.sendintr()
    terminal.expect("To leave: exit, or Ctrl-D")
    terminal.expect("you: ")
    terminal.sendline("and now")
    terminal.expect(r"model: \[\d+\] and now")  # the conversation goes on
    terminal.expect("you: ")
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
