"""How a command behaves whatever it runs in: any encoding, an output that is closed early, each error in one line."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, NoReturn

import typer
from rich.console import Console

from tinyllm.errors import CheckpointError, OptionError, RequestError, UnknownNameError

#: What is refused because of what was typed: exit status 2, as for an option that does not exist.
REFUSED = (OptionError, RequestError, CheckpointError, UnknownNameError)

# typer raises what its copy of click calls UsageError, and has no public name for it but its subclass's.
UsageError: Any = typer.BadParameter.__bases__[0]


def make_console(stderr: bool = False) -> Console:
    """A console that breaks no line and turns no `:name:` into an emoji: paths and names can be copied from it."""
    return Console(stderr=stderr, highlight=False, emoji=False, soft_wrap=True)


def run(app: typer.Typer, errors: tuple[type[Exception], ...]) -> NoReturn:
    """Run a command line and end the process.

    The exit status is 0; 1 for something that failed; 2 for something that was typed and cannot be; 130 for Ctrl-C.
    What goes wrong on purpose is one line on stderr. An output that is closed early (`| head -1`) ends it in silence.

    Args:
        errors: what the commands raise on purpose, each with a message for people.
    """
    make_streams_safe()
    try:
        status = app(standalone_mode=False) or 0
        if status == 130 and sys.stderr and sys.stderr.isatty():
            print(file=sys.stderr)  # behind the ^C that the terminal shows
    except UsageError as error:
        if message := error.format_message():  # it is empty where the help was shown, for want of a command
            path = error.ctx.command_path if error.ctx else ""
            say_error(f"{message.rstrip('.?')}{'?' if message.endswith('?') else '.'} See: {path} --help")
        status = 2
    except errors as error:
        say_error(str(error))
        status = 2 if isinstance(error, REFUSED) else 1
    except typer.Abort:
        status = 1
    except OSError as error:  # a full disk, a folder without rights: the machine's affair
        where = f"{error.filename}: " if error.filename else ""
        say_error(f"{where}{error.strerror or error}")
        give_up_stdout()
        status = 1
    sys.exit(status)


def say_error(message: str) -> None:
    """One line on stderr, as it stands."""
    console = make_console(stderr=True)
    console.print("error: ", style="red", end="")
    console.print(" ".join(message.split("\n")), markup=False)


def make_streams_safe() -> None:
    """Let no character stop a command, whatever the encoding of the terminal or the pipe.

    What cannot be written shows as its number (`\\u2026`). What cannot be read stays in the text as a lone surrogate,
    which `unreadable` finds.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def unreadable(text: str) -> bool:
    """Whether a text holds bytes that are no character in the encoding that it was read with."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def give_up_stdout() -> None:
    """Let what could not be written go, or Python would try again at its end and print a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
