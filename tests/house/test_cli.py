"""The `tinyllm` command: every command explains itself, and what goes wrong is one message and exit status 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from small_notebook import cell, day1
from typer.testing import CliRunner

from tinyllm import cli, lab, parts, verbs
from tinyllm import notebook as nb
from tinyllm.errors import RequestError
from tinyllm.files import write_text
from tinyllm.parts import all_parts

COMMANDS = ("lab", "start", "reset", "update", "submit", "status", "doctor", "generate", "chat")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrapped, so that texts can be looked for."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(cli.console, "width", 300)


def run(*args: str, text: str | None = None) -> Any:
    """Run a command that is expected to succeed."""
    result = CliRunner().invoke(cli.app, list(args), input=text)
    assert result.exit_code == 0, result.output or result.exception
    return result.output


def error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run a command that is expected to fail on purpose; return its one message."""
    monkeypatch.setattr(sys, "argv", ["tinyllm", *args])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    assert stopped.value.code == 1
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_the_commands_are_these() -> None:
    assert {info.name or info.callback.__name__ for info in cli.app.registered_commands} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    text = run(command, "--help")
    assert "Example" in text
    assert f"tinyllm {command}" in text


def test_the_command_is_installed_and_its_help_does_not_import_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['tinyllm', '--help']\n"
        "from tinyllm.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "doctor" in done.stdout
    entry = Path(sys.executable).with_name("tinyllm")
    assert entry.is_file(), "the console script is not installed: pip install -e ."


# ---------------------------------------------------------------- notebooks


def test_a_day_from_start_to_hand_in(clone: Path, work: Path) -> None:
    assert "is new" in run("start", "day1")
    assert "nothing was changed" in run("start", "day1")
    notebook = day1()
    cell(notebook, "a-first").source = "def first(): return 1"
    (work / "day1_small.ipynb").write_text(nb.write(notebook))

    out = run("submit", "day1")
    assert "1 of 2 exercises" in out
    assert "Without an answer: second" in out
    assert str(work / "submit/day1_small.ipynb") in out

    cell(notebook, "title").source = "# New"
    new = day1()
    cell(new, "title").source = "# New"
    nbformat.write(new, clone / "notebooks/day1_small.ipynb")
    out = run("update")
    assert "answers carried over: first" in out
    assert "backups" in out
    assert "nothing was changed" in run("update", "day1")

    write_text(parts.source_file("first"), "def first(): return 1")
    out = run("reset", "day1", "first")
    assert "answers_aside" in out
    assert "recorded first is taken back" in out
    assert "no answer to put aside" in run("reset", "day1", "first")


def test_update_before_anything_is_started(clone: Path) -> None:
    assert "tinyllm start day0" in run("update")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("start", "day9"), "day0_warm_up, day1_small"),
        (("submit", "day1"), "tinyllm start day1"),
        (("reset", "day1", "first"), "tinyllm start day1"),
        (("lab", "--day", "day[9]"), "day[9]"),
        (("generate", "Hello", "--model", "/nowhere/at/all"), "/nowhere/at/all"),
        (("generate", "Hello", "--top-p", "0"), "top_p"),
        (("generate", "Hello", "--attention-backend", "flash"), 'give "auto", "torch", "triton" or "native"'),
    ],
)
def test_what_goes_wrong_is_one_message(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], words: str
) -> None:
    assert words in error(monkeypatch, capsys, *args)


def test_an_unknown_exercise_lists_the_known_ones(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs.start("day1")
    assert "first, second" in error(monkeypatch, capsys, "reset", "day1", "third")


def test_a_damaged_notebook_is_named(
    clone: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs.start("day1").path.write_text("{")
    assert str(work / "day1_small.ipynb") in error(monkeypatch, capsys, "submit", "day1")


# ---------------------------------------------------------------- lab


def test_lab_copies_the_notebooks_and_starts_jupyterlab(
    clone: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, command: started.append([path, *command]))
    out = run("lab", "--no-browser", "--port", "8899")
    assert "day1_small.ipynb" in out
    assert (work / "day0_warm_up.ipynb").is_file()
    (command,) = started
    assert command[:2] == [sys.executable, sys.executable]
    assert command[-3:] == ["--no-browser", "--port", "8899"]
    assert f"--ServerApp.root_dir={work}" in command
    assert "--LabApp.default_url=/lab/tree/day0_warm_up.ipynb" in command


def test_lab_opens_the_day_that_is_asked_for(clone: Path) -> None:
    assert "--LabApp.default_url=/lab/tree/day1_small.ipynb" in lab.lab_command("day1")


def test_lab_without_jupyterlab_says_how_to_get_it(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lab, "installed", lambda _: None)
    assert "make lab" in error(monkeypatch, capsys, "lab")


def test_validate_is_switched_on_in_the_server() -> None:
    """nbgrader's Validate button needs a server extension; installing nbgrader switches it on."""
    command = [sys.executable, "-m", "jupyter", "server", "extension", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "validate_assignment" in line]
    assert any("enabled" in line for line in lines)
    assert any("OK" in line for line in lines)


# ---------------------------------------------------------------- status and the model


def test_status_shows_whose_code_each_part_is() -> None:
    out = run("status")
    assert "BlockAllocator" in out
    assert f"0 of {len(all_parts())} parts are yours" in out


class EchoLLM:
    """Stands where the engine is, so that the loop is tested without a checkpoint."""

    made: list[dict[str, Any]]

    def __init__(self, model: Any, **options: Any) -> None:
        self.made.append(options)

    def chat(self, messages: list[dict[str, str]], params: Any) -> list[Any]:
        if len(messages) > 3:
            raise RequestError("the conversation is too long")
        return [SimpleNamespace(text=f"[{len(messages)}] {messages[-1]['content']}")]


def test_chat_remembers_and_starts_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyllm.engine.llm.LLM", EchoLLM)
    monkeypatch.setattr(EchoLLM, "made", [], raising=False)
    out = run("chat", "--parts", "mine", text="one\ntwo\nthree\n\nfour\n")
    replies = [line.split("model: ")[1] for line in out.splitlines() if "model: " in line]
    assert replies == ["[1] one", "[3] two", "[1] four"]
    assert "the conversation is too long" in out
    plain = {"device": "cpu", "dtype": "auto", "attention_backend": "auto", "enforce_eager": False}
    assert EchoLLM.made == [{"parts": "mine", **plain}]


def test_chat_hands_on_how_the_model_is_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyllm.engine.llm.LLM", EchoLLM)
    monkeypatch.setattr(EchoLLM, "made", [], raising=False)
    run("chat", "--device", "cuda", "--dtype", "float16", "--attention-backend", "torch", "--enforce-eager", text="")
    chosen = {"device": "cuda", "dtype": "float16", "attention_backend": "torch", "enforce_eager": True}
    assert EchoLLM.made == [{"parts": "reference", **chosen}]


@pytest.mark.needs("checkpoint")
def test_an_unknown_dtype_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert '"bfloat16"' in error(monkeypatch, capsys, "generate", "Hello", "--dtype", "int3")


@pytest.mark.needs("checkpoint")
def test_generate_continues_a_text_with_the_shipped_model() -> None:
    first = run("generate", "Once upon a time", "--max-tokens", "8")
    assert first.startswith("Once upon a time")
    assert len(first.strip()) > len("Once upon a time")
    assert first == run("generate", "Once upon a time", "--max-tokens", "8", "--seed", "3")
    several = run("generate", "Once", "--max-tokens", "4", "--n", "3", "--temperature", "1", "--seed", "1")
    assert several.count("Once") >= 3
