"""The `grader` command: build notebooks, prove the checks, grade submissions. The work is done elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from grader.usage import ShortError
from tinyllm.errors import TinyLLMError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Build the course's notebooks, prove its checks, and grade submissions.",
    rich_markup_mode="markdown",
)
console = Console()


def main() -> None:
    """Run the command; an error that was raised on purpose is printed as one message, with exit status 1."""
    try:
        app()
    except (TinyLLMError, ShortError) as error:
        Console(stderr=True).print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


def escape(text: str) -> str:
    """Text that rich prints as it stands."""
    from rich.markup import escape as rich_escape

    return rich_escape(text)


@app.command()
def build(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when notebooks/ is out of date.")] = False,
) -> None:
    """Make the notebooks from the lessons: notebooks/ (release) and build/instructor/ (solved).

    Examples:

        grader build

        grader build --check
    """
    from grader.build.drift import drift
    from grader.build.notebook import write_notebooks

    if not check:
        for path in write_notebooks():
            console.print(f"wrote {path}", soft_wrap=True)
        return
    messages = drift()
    for message in messages:
        console.print(escape(message), soft_wrap=True, highlight=False)
    if messages:
        console.print(f"{len(messages)} differences. The lessons in solutions/ are the source: run `grader build`.")
        raise typer.Exit(1)
    console.print("notebooks/ is what the lessons give.")


@app.command()
def release(
    folder: Annotated[Path, typer.Argument(help="Where the notebooks to hand out are copied to.")],
) -> None:
    """Copy the release notebooks to hand out, once it is sure that they are up to date and hold no solution.

    Examples:

        grader release ~/course/week1
    """
    from grader.build.release import hand_out

    for path in hand_out(folder):
        console.print(f"wrote {path}", soft_wrap=True)


@app.command()
def hint(
    name: Annotated[str, typer.Argument(help="The exercise, for example BlockAllocator.")],
    level: Annotated[int, typer.Argument(min=1, help="1 is a nudge; higher levels say more.")] = 1,
) -> None:
    """Print a hint for an exercise.

    Examples:

        grader hint BlockAllocator

        grader hint BlockAllocator 2
    """
    import grader

    grader.hint(name, level)


@app.command()
def solution(
    name: Annotated[str, typer.Argument(help="The exercise, for example BlockAllocator.")],
) -> None:
    """Print the reference solution of an exercise.

    Examples:

        grader solution BlockAllocator
    """
    import grader

    grader.solution(name)
