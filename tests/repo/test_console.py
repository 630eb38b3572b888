"""Every command in every kind of terminal and pipe: any encoding, narrow, dumb, closed early. Never a traceback."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import scripted_llm
from scripted_llm import ScriptedLLM

import grader.cli
from tinyllm import cli
from tinyllm.console import unreadable

COMMANDS = {
    "help": ("--help",),
    "generate --help": ("generate", "--help"),
    "start": ("start", "day1"),
    "update": ("update",),
    "submit": ("submit", "day0"),
    "status": ("status",),
    "doctor": ("doctor",),
    "generate": ("generate", "say café … 🍎 odd"),
    "chat": ("chat",),
    "a wrong name": ("start", "d…y1"),
    "a wrong option": ("generate", "x", "--temperature", "…"),
}


def run_main(
    monkeypatch: pytest.MonkeyPatch, *args: str, encoding: str = "utf-8", given: bytes = b"", main: object = cli.main
) -> tuple[int, str, str]:
    """Run a command in this process with streams of this encoding; returns its status, and what it wrote."""
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given), encoding=encoding))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, encoding=encoding))
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(err, encoding=encoding))
    monkeypatch.setattr("sys.argv", ["tinyllm", *args])
    with pytest.raises(SystemExit) as stopped:
        main()  # type: ignore[operator]
    sys.stdout.flush()
    sys.stderr.flush()
    return int(stopped.value.code or 0), out.getvalue().decode(encoding), err.getvalue().decode(encoding)


def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 40 columns."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(cli.console, "width", 40)  # which has read the variable when it was made


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "load", ScriptedLLM)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("args", COMMANDS.values(), ids=COMMANDS.keys())
def test_every_command_in_every_encoding(
    clone: Path, scripted: None, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], encoding: str
) -> None:
    narrow(monkeypatch)
    run_main(monkeypatch, "start", "day0")
    status, out, err = run_main(monkeypatch, *args, encoding=encoding, given=b"Hello\n")
    wrong = args[-1] in ("d…y1", "…")
    assert status == (2 if wrong else 0), err
    assert out or wrong
    assert err.startswith("error: ") is wrong


@pytest.mark.parametrize("args", [("--help",), ("hint", "BlockAlocator"), ("solution", "…")])
def test_the_grader_too(monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]) -> None:
    status, out, err = run_main(monkeypatch, *args, encoding="ascii", main=grader.cli.main)
    assert status == (0 if args == ("--help",) else 1)
    assert out or err.startswith("error: ")


def test_what_an_encoding_lacks_shows_as_its_number(scripted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = run_main(monkeypatch, "generate", "café 🍎", encoding="latin-1")
    assert out == "café \\U0001f34e[1] café \\U0001f34e\n"


def test_bytes_that_are_no_text_are_told_and_not_sent(scripted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = run_main(monkeypatch, "chat", given=b"caf\xe9\nHello\n")
    assert (status, out) == (0, "[1] Hello\n")
    assert "no utf-8 text" in err
    status, out, err = run_main(monkeypatch, "generate", "caf\udce9")
    assert (status, out) == (2, "")
    assert "the prompt holds bytes that are no utf-8 text" in err
    assert unreadable("\udce9")
    assert not unreadable("\U0001f34eé")


def test_a_narrow_terminal_cuts_nothing(clone: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch)
    assert f"{work}/day1_small.ipynb is new.\n" in run_main(monkeypatch, "start", "day1")[1]
    _, out, _ = run_main(monkeypatch, "status")
    assert "…" not in out
    table = out.split("\n\n")[0].splitlines()
    assert len(table) > 14
    assert max(map(len, table)) <= 40
    assert "kv_bytes_per_token" in re.sub(r"\s+|reference|no answer|recorded", "", out)


def test_a_typing_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for args, words in (
        (("genrate", "x"), "Did you mean 'generate'? See: "),
        (("generate", "x", "--temprature", "1"), "tinyllm generate --help"),
        (("generate", "x", "--max-tokens", "many"), "'--max-tokens'"),
        (("start",), "Missing argument"),
    ):
        status, out, err = run_main(monkeypatch, *args)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("error: ")
        assert words in err


def test_without_a_command_there_is_the_help_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = run_main(monkeypatch)
    assert status == 2
    assert "Usage" in out + err
    assert "error" not in err


def test_what_the_machine_refuses_is_one_line(scripted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tinyllm.model_text.write_continuations", full)
    monkeypatch.setattr("tinyllm.console.give_up_stdout", lambda: None)
    assert run_main(monkeypatch, "generate", "x") == (1, "", "error: No space left on device\n")


def test_ctrl_c_ends_a_command_with_its_own_status(scripted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tinyllm.model_text.write_continuations", interrupted)
    assert run_main(monkeypatch, "generate", "x") == (130, "", "")


# ---------------------------------------------------------------- in a process of its own


def start_process(*args: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, scripted_llm.__file__, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


def test_an_output_that_is_closed_early_ends_the_command_in_silence() -> None:
    process = start_process("generate", "please count")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(12) == b"please count"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() != 0, "it counts for ever, unless somebody stops reading"


def test_a_full_disk_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full; fix: a system that has it, as Linux does")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, scripted_llm.__file__, "generate", "x"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"error: No space left on device\n"


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LANG": "C", "LC_ALL": "C", "TERM": "dumb"}])
def test_the_environment_decides_the_encoding_and_nothing_breaks(environment: dict[str, str]) -> None:
    out, err = start_process("generate", "é odd", **environment).communicate()
    assert err == b""
    assert out.endswith(b":apple: [bold]x[/bold]\t\x1b[2J\xc2\x9b2Kend  \n\n") or out.endswith(
        b":apple: [bold]x[/bold]\t\x1b[2J\\x9b2Kend  \n\n"
    )
