"""The `tinyllm` command: every command explains itself, and what goes wrong is one line and an exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from scripted_llm import ScriptedLLM
from small_notebook import cell, day1
from typer.testing import CliRunner

from tinyllm import cli, lab, parts, verbs
from tinyllm import notebook as nb
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


def error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str, status: int = 1) -> str:
    """Run a command that is expected to fail on purpose; return its one message.

    The status is 1, or 2 where what was typed cannot be.
    """
    monkeypatch.setattr(sys, "argv", ["tinyllm", *args])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    assert stopped.value.code == status
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


def test_a_day_without_exercises_has_nothing_to_hand_in(clone: Path, work: Path) -> None:
    run("start", "day0")
    out = run("submit", "day0")
    assert "not graded, and there is nothing to hand in" in out
    assert "0 of 0" not in out
    assert (work / "submit/day0_warm_up.ipynb").is_file()


def test_update_before_anything_is_started(clone: Path) -> None:
    assert "tinyllm start day0" in run("update")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("submit", "day1"), "tinyllm start day1"),
        (("reset", "day1", "first"), "tinyllm start day1"),
    ],
)
def test_what_goes_wrong_is_one_message(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], words: str
) -> None:
    assert words in error(monkeypatch, capsys, *args)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("start", "day9"), "day0_warm_up, day1_small"),
        (("start", "dya1"), "Did you mean day1?"),
        (("lab", "--day", "day[9]"), "day[9]"),
        (("lab", "day[9]", "--no-browser"), "day[9]"),
        (("generate", "Hello", "--model", "/nowhere/at/all"), "/nowhere/at/all"),
        (("generate", "Hello", "--top-p", "0"), "top_p"),
        (("generate", "Hello", "--top-k", "-1"), "top_k is -1"),
        (("generate", "Hello", "--temperature", "nan"), "temperature is nan"),
        (("generate", "Hello", "--max-tokens", "-1"), "max_tokens is -1"),
        (("generate", "Hello", "--n", "0"), "n is 0"),
        (("generate", "Hello", "--stop", ""), "stop is"),
        (("generate", "Hello", "-O", "attention_backend=flash"), 'give "auto", "torch", "triton" or "native"'),
        (("generate", "Hello", "-O", "num_block=8"), "no option num_block; did you mean num_blocks?"),
        (("generate", "Hello", "-O", "cash.num_blocks=8"), "no option cash.num_blocks; did you mean cache.num_blocks?"),
        (("generate", "Hello", "-O", "cache=8"), "no option cache"),
        (("generate", "Hello", "-O", "device=cuda"), "no option device; did you mean --device?"),
        (("generate", "Hello", "-O", "num_blocks"), "the option 'num_blocks' has no value; give key=value"),
        (("generate", "Hello", "-O", "num_blocks=many"), "num_blocks is 'many'; it must be a whole number"),
        (("chat", "-O", "num_blocks=0"), "num_blocks is 0; it must be at least 1"),
        (("chat", "-O", "enforce_eager=1"), "enforce_eager is '1'; it must be True or False"),
        (("generate", "Hello", "--device", "gpu"), 'the device is \'gpu\'; give "cpu", "cuda"'),
        (("generate", "Hello", "--device", "cpu:x"), 'give "cpu", "cuda"'),
        (("generate", "Hello", "--device", "mps"), 'give "cpu", "cuda"'),
        (("generate", "Hello", "--device", "meta"), 'give "cpu", "cuda"'),
        (("chat", "--device", "gpu"), 'give "cpu", "cuda"'),
        (("chat", "--model", "/nowhere/at/all"), "/nowhere/at/all"),
        (("chat", "--max-tokens", "0"), "max_tokens is 0"),
    ],
)
def test_what_cannot_be_is_one_message_and_a_status_of_its_own(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], words: str
) -> None:
    assert words in error(monkeypatch, capsys, *args, status=2)


def test_an_unknown_exercise_lists_the_known_ones(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs.start("day1")
    assert "first, second" in error(monkeypatch, capsys, "reset", "day1", "third", status=2)


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


@pytest.mark.parametrize("args", [("day1", "--no-browser"), ("--day", "day1", "--no-browser")])
def test_lab_opens_the_day_that_is_asked_for(
    clone: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    assert "--LabApp.default_url=/lab/tree/day1_small.ipynb" in lab.lab_command("day1")
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, command: started.append(command))
    run("lab", *args)
    assert "--LabApp.default_url=/lab/tree/day1_small.ipynb" in started[0]
    assert started[0][-1] == "--no-browser"
    assert "day1" not in started[0]


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


def test_status_imports_neither_torch_nor_triton() -> None:
    """It would take seconds; what it tells is in a table and in small files."""
    code = (
        "import sys; sys.argv = ['tinyllm', 'status']\n"
        "from tinyllm.cli import app\n"
        "app(standalone_mode=False)\n"
        "sys.exit(' '.join({'torch', 'triton'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "BlockAllocator" in done.stdout


def test_chat_remembers_and_an_empty_line_wipes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyllm.engine.llm.LLM", ScriptedLLM)
    monkeypatch.setattr(ScriptedLLM, "made", [])
    assert run("chat", "--parts", "mine", text="one\n\ntwo\n") == "[1] one\n[3] two\n"
    plain = {"device": "cpu", "dtype": "auto"}
    assert ScriptedLLM.made == [{"parts": "mine", **plain}]


def test_chat_hands_on_how_the_model_is_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyllm.engine.llm.LLM", ScriptedLLM)
    monkeypatch.setattr(ScriptedLLM, "made", [])
    options = ("attention_backend=torch", "enforce_eager=true", "num_blocks=8", "cache.num_blocks = 64")
    run("chat", "--device", "cuda", "--dtype", "float16", *(word for each in options for word in ("-O", each)), text="")
    chosen = {"device": "cuda", "dtype": "float16", "attention_backend": "torch", "enforce_eager": True}
    chosen["cache.num_blocks"] = 64
    assert ScriptedLLM.made == [{"parts": "reference", **chosen}]


def test_whose_parts_run_is_said_beside_the_text_and_not_in_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Talkative(ScriptedLLM):
        def __init__(self, model: Any = None, **options: Any) -> None:
            print("Your parts: none.")
            super().__init__(model, **options)

    monkeypatch.setattr("tinyllm.engine.llm.LLM", Talkative)
    monkeypatch.setattr(sys, "argv", ["tinyllm", "generate", "say odd", "--parts", "mine"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    captured = capsys.readouterr()
    assert captured.out == "say odd:apple: [bold]x[/bold]\t\x1b[2J\x9b2Kend  \n\n"
    assert captured.err == "Your parts: none.\n"


@pytest.mark.needs("checkpoint")
def test_an_unknown_dtype_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert '"bfloat16"' in error(monkeypatch, capsys, "generate", "Hello", "--dtype", "int3", status=2)


@pytest.mark.needs("checkpoint")
def test_an_empty_prompt_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the prompt is empty" in error(monkeypatch, capsys, "generate", "", status=2)


@pytest.mark.needs("checkpoint")
def test_the_piped_text_is_that_of_the_library_byte_for_byte() -> None:
    from tinyllm import LLM, SamplingParams

    prompt = ":apple: [bold]\tOnce  upon a time \n"
    text = LLM().generate(prompt, SamplingParams(max_tokens=24))[0].text
    assert run("generate", prompt, "--max-tokens", "24") == prompt + text + "\n"
    answer = LLM().chat([{"role": "user", "content": "Hello!"}], SamplingParams(max_tokens=24))[0].text
    assert run("chat", "--max-tokens", "24", text="Hello!\nexit\n") == answer + "\n"


@pytest.mark.needs("checkpoint")
def test_generate_continues_a_text_with_the_shipped_model() -> None:
    first = run("generate", "Once upon a time", "--max-tokens", "8")
    assert first.startswith("Once upon a time")
    assert len(first.strip()) > len("Once upon a time")
    assert first == run("generate", "Once upon a time", "--max-tokens", "8", "--seed", "3")
    several = run("generate", "Once", "--max-tokens", "4", "--n", "3", "--temperature", "1", "--seed", "1")
    assert several.count("Once") >= 3
