"""The `grader` command: build notebooks, prove the checks, grade submissions. The work is done elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from grader.instructor.commands import add_commands
from grader.usage import ShortError
from tinyllm.errors import TinyLLMError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Build the course's notebooks, prove its checks, and grade submissions.",
    rich_markup_mode="markdown",
)
add_commands(app)
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
def gate(
    names: Annotated[list[str] | None, typer.Argument(help="Exercises; all of them by default.")] = None,
) -> None:
    """Prove each exercise's check: right answers pass, and every known mistake fails and is named.

    Examples:

        grader gate

        grader gate BlockAllocator PrefixCache
    """
    from grader.checks import exercises
    from grader.gate import run_gate

    with progress_bar() as bar:
        task = bar.add_task("", total=len(names or exercises()))
        report = run_gate(names or None, progress=lambda name: bar.update(task, advance=1, description=name))
    console.print(report.table())
    for problem in report.problems:
        console.print(f"[red]{escape(problem)}[/]", soft_wrap=True)
    console.print(f"{report.num_checked} proofs, {len(report.problems)} failed.")
    if not report:
        raise typer.Exit(1)


@app.command()
def grade(
    submissions: Annotated[
        Path | None,
        typer.Argument(help="One folder for each student, or an nbgrader course. Without it the bundled class."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the results go; by default below build/grading/.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="What hidden cases are drawn from; by default a fresh secret one.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier grading in the same folder.")] = False,
    class_file: Annotated[
        Path | None, typer.Option("--class", help="What counts, and when it is due (class.toml; the guide says how).")
    ] = None,
) -> None:
    """Grade submissions: marks, feedback pages, and an nbgrader course to look through them.

    Examples:

        grader grade

        grader grade submissions/ --out results/

        grader grade submissions/ --out results/ --seed 7 --force
    """
    import tempfile

    from grader.build.course import gradable_days
    from grader.example_class import write_class
    from grader.pipeline.grade import grade as grade_class
    from grader.pipeline.report import Status, table
    from tinyllm.paths import project_root

    course = gradable_days()
    target = out or project_root() / "build" / "grading" / (submissions.resolve().name if submissions else "example")
    with tempfile.TemporaryDirectory(prefix="class-") as temporary, progress_bar() as bar:
        task = bar.add_task("making the example class" if submissions is None else "starting", total=None)
        if submissions is None:
            for day in course:
                write_class(Path(temporary), day)

        def progress(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name)

        place = submissions or Path(temporary)
        marks = grade_class(
            place, target, course, seed, force, example=submissions is None, progress=progress, class_file=class_file
        )
    console.print(table(marks))
    seconds = sum(one.seconds for one in marks)
    console.print(
        f"{len(marks)} submissions in {seconds:.0f} s. Marks, feedback and gradebook: {target}", soft_wrap=True
    )
    if any(one.status is Status.FAILED for one in marks):
        raise typer.Exit(1)


def progress_bar() -> Progress:
    """A bar with what is under way, how many are done, and the time."""
    return Progress(
        TextColumn("{task.description:<40.40}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )


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
