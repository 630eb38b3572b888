"""The `grader` command: build notebooks, prove the checks, grade submissions. The work is done elsewhere."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from grader.instructor.commands import add_commands
from grader.usage import ShortError, UsageError
from tinyllm.console import make_console, run
from tinyllm.errors import TinyLLMError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Build the course's notebooks, prove its checks, and grade submissions.",
    rich_markup_mode="markdown",
)
add_commands(app)
console = make_console()


def main() -> None:
    """Run the command line; see `tinyllm.console.run`."""
    run(app, (TinyLLMError, ShortError))


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
            console.print(f"wrote {path}")
        return
    messages = drift()
    for message in messages:
        console.print(escape(message), highlight=False)
    if messages:
        console.print(f"{len(messages)} differences. The lessons in solutions/ are the source: run `grader build`.")
        raise typer.Exit(1)
    console.print("notebooks/ is what the lessons give.")


@app.command()
def gate(
    names: Annotated[list[str] | None, typer.Argument(help="Exercises; all of them by default.")] = None,
    mutate: Annotated[
        bool, typer.Option("--mutate", help="Try every small change to a right answer instead: none may pass.")
    ] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; by default one for each core.")] = None,
    sample: Annotated[str, typer.Option(help="With --mutate: 3/40 tries the third of 40 parts.")] = "1/1",
    json_path: Annotated[
        Path | None, typer.Option("--json", help="With --mutate: write the counts and what escaped to this file.")
    ] = None,
) -> None:
    """Prove each exercise's check: right answers pass, and every known mistake fails and is named.

    With `--mutate` every small change to a right answer (a bound off by one, a line left out, a condition negated)
    must fail on each of the gate's seeds, or stand in `solutions/<day>/equivalents/` with a reason.

    Examples:

        grader gate

        grader gate BlockAllocator PrefixCache

        grader gate --mutate BlockAllocator

        grader gate --mutate --sample 3/40 --jobs 8

        grader gate --mutate --json build/mutation.json
    """
    if mutate:
        gate_by_mutation(names or None, jobs, sample, json_path)
        return
    from grader.checks import exercises
    from grader.mutation.gate import run_gate
    from tinyllm.doctor import usable_cores

    with progress_bar() as bar:
        task = bar.add_task("starting", total=len(names or exercises()))

        def progress(name: str) -> None:
            bar.update(task, advance=1, description=name)

        report = run_gate(names or None, progress=progress, jobs=jobs or usable_cores())
    console.print(report.table())
    for problem in report.problems:
        console.print(f"[red]{escape(problem)}[/]")
    console.print(f"{report.num_checked} proofs, {len(report.problems)} failed.")
    if not report:
        raise typer.Exit(1)


def gate_by_mutation(names: list[str] | None, jobs: int | None, sample: str, json_path: Path | None) -> None:
    """`grader gate --mutate`."""
    from grader.mutation.gate import MUTATION_SEEDS
    from grader.mutation.run import Sample, run_mutation

    with progress_bar() as bar:
        task = bar.add_task("", total=None)

        def progress(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name)

        report = run_mutation(names, MUTATION_SEEDS, jobs, Sample.parse(sample), progress)
    console.print(report.table())
    for line in report.lines():
        console.print(escape(line), soft_wrap=True, highlight=False)
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    if not report:
        raise typer.Exit(1)


@app.command()
def grade(
    submissions: Annotated[
        Path | None,
        typer.Argument(
            help="A folder for each student, an nbgrader course, or a zip from a learning platform. "
            "Without it the bundled class."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the results go; by default below build/grading/.")] = None,
    day: Annotated[
        list[str] | None, typer.Option(help="Grade this day (day1); repeatable. By default what the notebooks say.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Workers; by default one for each core.")] = None,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster to run the work on.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="What hidden cases are drawn from; by default a fresh secret one.")
    ] = None,
    seed_file: Annotated[Path | None, typer.Option(help="A file with the seed, to keep it out of the shell.")] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Let submissions use the GPU, one at a time.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a grading that was cut off.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier grading in the same folder.")] = False,
    class_file: Annotated[
        Path | None, typer.Option("--class", help="What counts, and when it is due: a class.toml.")
    ] = None,
    unsafe: Annotated[
        bool, typer.Option("--unsafe-no-sandbox", help="Run submissions with your own rights if nothing holds them.")
    ] = False,
) -> None:
    """Grade submissions: marks, feedback pages, and an nbgrader course to look through them.

    The exit status is 0 when every submission has a final state, whatever its marks, and 1 when a person must look.

    Examples:

        grader grade

        grader grade submissions/ --out results/

        grader grade moodle.zip --out results/ --day day1 --jobs 8

        grader grade submissions/ --out results/ --resume
    """
    from grader.workers import start_forkserver

    if ray is None:
        start_forkserver(["grader.pipeline.pool"])
    gc.disable()  # what the imports make stays: to look through a million objects, now and at the end, takes a second
    from grader.pipeline.grade import Options, grade_or_example
    from grader.reporting.terminal import table

    gc.freeze()
    gc.enable()

    options = Options(
        days=tuple(day or ()),
        seed=read_seed(seed, seed_file),
        jobs=jobs,
        ray=ray,
        gpu=gpu,
        resume=resume,
        force=force,
        unsafe=unsafe,
        class_file=class_file,
    )
    with progress_bar() as bar:
        task = bar.add_task("starting", total=None)

        def progress(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total or None, description=name)

        graded = grade_or_example(submissions, out, options, progress)
    console.print(table(graded.records))
    for line in graded.summary():
        console.print(escape(line), highlight=False)
    if graded.unfinished:
        raise typer.Exit(1)


def read_seed(seed: int | None, seed_file: Path | None) -> int | None:
    """The seed from the command line or from a file.

    Raises:
        UsageError: both are given, or the file holds no number.
    """
    if seed_file is None:
        return seed
    if seed is not None:
        raise UsageError("give --seed or --seed-file, not both")
    try:
        return int(seed_file.read_text(encoding="utf-8").strip())
    except (OSError, ValueError) as error:
        raise UsageError(f"{seed_file} should hold the seed, one whole number ({error})") from None


@app.command()
def selftest(
    level: Annotated[
        str | None, typer.Option(help="Test this level only: bubblewrap, unshare or none. By default the best here.")
    ] = None,
) -> None:
    """Try to break out of the sandbox in every way that it should stop, and print what holds here.

    Examples:

        grader selftest

        grader selftest --level unshare
    """
    from grader.selftest.run import report, run_selftest

    findings = run_selftest(level)
    console.print(report(findings))
    if not findings.all_hold:
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
        console.print(f"wrote {path}")


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
    from grader.learner import verbs

    verbs.hint(name, level)


@app.command()
def solution(
    name: Annotated[str, typer.Argument(help="The exercise, for example BlockAllocator.")],
) -> None:
    """Print the reference solution of an exercise.

    Examples:

        grader solution BlockAllocator
    """
    from grader.learner import verbs

    verbs.solution(name)
