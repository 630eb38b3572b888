"""The `tinyllm` command: the learner's verbs, the doctor, and a prompt for the model. The work is done elsewhere.

Each command imports what it needs: torch takes seconds, and `--help` should not.
"""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from tinyllm.console import make_console, run, unreadable
from tinyllm.errors import RequestError, TinyLLMError

if TYPE_CHECKING:
    from tinyllm.engine.llm import LLM

app = typer.Typer(
    help="A course in LLM serving: work through the notebooks, and run the engine with your own parts in it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
console = make_console()

Day = Annotated[str, typer.Argument(help="A day of the course, for example `day1`.", show_default=False)]
Model = Annotated[
    Path | None, typer.Option(help="A checkpoint folder in Hugging Face format; the target that ships by default.")
]
PartsOption = Annotated[str, typer.Option(help="Whose code runs the engine: `reference`, or `mine`.")]
MaxTokens = Annotated[int, typer.Option(help="Most tokens to generate.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
TopK = Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.")]
TopP = Annotated[float, typer.Option(help="Keep the likeliest tokens up to this probability in all.")]
Seed = Annotated[int | None, typer.Option(help="Makes the draws repeatable.")]
Device = Annotated[str, typer.Option(help="Where the model runs: `cpu`, `cuda`, or `cuda:1` for the second GPU.")]
Dtype = Annotated[
    str, typer.Option(help="`float32`, `bfloat16`, `float16`, or `auto`: the checkpoint's on CUDA, else float32.")
]
EngineOptions = Annotated[
    list[str] | None,
    typer.Option(
        "-O",
        metavar="KEY=VALUE",
        help="An option of the engine, such as `num_blocks=64` or `cache.block_size=32`; may be repeated. "
        "`attention_backend` and `experts_backend` are `torch`, `triton`, or `native`, which is C for float32 on the "
        "CPU and needs a C compiler; `auto` is Triton on CUDA and torch elsewhere. `enforce_eager=true` replays no "
        "CUDA graphs.",
    ),
]


def main() -> None:
    """Run the command line; see `tinyllm.console.run`."""
    run(app, (TinyLLMError,))


def shown(path: Path) -> str:
    """A path as short as it can be from where the user is, safe to print with markup."""
    return escape(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))


# ---------------------------------------------------------------- notebooks


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(
    context: typer.Context,
    day: Annotated[str, typer.Option(help="The notebook to open first; `tinyllm lab day1` does the same.")] = "day0",
) -> None:
    """Open the notebooks in JupyterLab.

    Copies the notebooks that you have no copy of yet into work/ and never touches those that are there.
    Arguments that are not known here go to JupyterLab.

    **Examples**

    - `tinyllm lab`
    - `tinyllm lab day1`
    - `tinyllm lab --no-browser --port 8899`
    """
    from tinyllm.lab import lab_command
    from tinyllm.paths import work_dir
    from tinyllm.workspace import fetch_missing

    extra = context.args
    if extra and not extra[0].startswith("-"):
        day, *extra = extra
    command = lab_command(day, extra)
    for path in fetch_missing():
        console.print(f"new: {shown(path)}")
    console.print("Starting JupyterLab; its address follows. Ctrl-C stops it.")
    sys.stdout.flush()
    os.chdir(work_dir())  # nbgrader looks for its course below the folder that is served
    os.execv(command[0], command)


@app.command()
def start(day: Day) -> None:
    """Get your own copy of a day's notebook, unless you have one.

    **Example**

    - `tinyllm start day1`
    """
    from tinyllm.verbs import start as start_day

    started = start_day(day)
    console.print(f"{shown(started.path)} {'is new' if started.fresh else 'is there already; nothing was changed'}.")
    if started.exercises:
        console.print(f"Exercises: {', '.join(started.exercises)}")
    console.print(f"To work on it: tinyllm lab --day {escape(day)}")


@app.command()
def reset(day: Day, exercise: Annotated[str, typer.Argument(help="The exercise's name.", show_default=False)]) -> None:
    """Put one exercise back to its stub, and take back what `use` recorded. Answers are kept in work/answers_aside/.

    Close the notebook in JupyterLab first, or reload it afterwards.

    **Example**

    - `tinyllm reset day1 BlockAllocator`
    """
    from tinyllm.verbs import reset as reset_exercise

    done = reset_exercise(day, exercise)
    if done.recorded:
        console.print(f'The recorded {escape(exercise)} is taken back: `parts="mine"` uses the reference again.')
    if not done.kept:
        console.print(f"{escape(exercise)} is at its stub in {shown(done.path)}; there was no answer to put aside.")
        return
    console.print(f"{escape(exercise)} is back at its stub in {shown(done.path)}.")
    for path in done.kept:
        console.print(f"Your answer is in {shown(path)}.")


@app.command()
def update(
    day: Annotated[str | None, typer.Argument(help="A day; all that you have started by default.")] = None,
) -> None:
    """Bring your notebooks to the newest release (after a `git pull`). Your answers and own cells are carried over.

    The notebook as it was is kept in work/backups/.

    **Examples**

    - `tinyllm update`
    - `tinyllm update day1`
    """
    from tinyllm.verbs import started_days
    from tinyllm.verbs import update as update_day

    days = [day] if day else started_days()
    if not days:
        console.print("You have no notebook yet: `tinyllm start day0` gets you the first.")
    for each in days:
        done = update_day(each)
        if done.merge is None or done.backup is None:
            console.print(f"{shown(done.path)} is at the newest release; nothing was changed.")
            continue
        console.print(f"{shown(done.path)} is now the newest release.")
        console.print(f"  answers carried over: {', '.join(done.merge.carried) or 'none'}")
        if done.merge.own_cells:
            console.print(f"  cells of your own carried over: {done.merge.own_cells}")
        if done.merge.replaced:
            console.print(
                f"  cells that you and the release both changed, now the release's: {len(done.merge.replaced)}"
            )
        console.print(f"  the notebook as it was: {shown(done.backup)}")


@app.command()
def submit(day: Day) -> None:
    """Write the one file to hand in: your notebook without its outputs, in work/submit/.

    **Example**

    - `tinyllm submit day1`
    """
    from tinyllm.verbs import submit as submit_day

    done = submit_day(day)
    if not done.exercises:
        console.print(f"{done.path.stem} has no exercises: it is not graded, and there is nothing to hand in.")
        console.print(f"Should your course collect it all the same, this is the file: {shown(done.path)}")
        return
    answered = len(done.exercises) - len(done.unanswered)
    console.print(f"Hand in this file: [bold]{shown(done.path)}[/bold]")
    console.print(f"{answered} of {len(done.exercises)} exercises have an answer in it.")
    if done.unanswered:
        console.print(f"Without an answer: {', '.join(done.unanswered)}")


@app.command()
def status() -> None:
    """Show whose code each part of the engine is, yours or the reference.

    **Example**

    - `tinyllm status`
    """
    from tinyllm.parts import status as part_status

    table = Table(box=None, pad_edge=False)
    for column in ("day", "part", "whose", "why"):
        table.add_column(column, overflow="fold")
    rows = part_status()
    for row in rows:
        style = "green" if row.owner == "yours" else "dim"
        table.add_row(str(row.day), row.name, f"[{style}]{row.owner}[/{style}]", row.reason)
    console.print(table)
    mine = sum(row.owner == "yours" for row in rows)
    console.print(
        f'\n{mine} of {len(rows)} parts are yours. Run them: tinyllm generate --parts mine "Once upon a time"'
    )


@app.command()
def doctor() -> None:
    """Say what this machine can do, with a fix for each thing missing.

    **Example**

    - `tinyllm doctor`
    """
    from tinyllm.doctor import doctor as examine

    examine(console)


# ---------------------------------------------------------------- the model


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue.", show_default=False)],
    model: Model = None,
    parts: PartsOption = "reference",
    max_tokens: MaxTokens = 64,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    engine_options: EngineOptions = None,
    tensor_parallel: Annotated[
        int, typer.Option(help="Processes that each hold a part of every matrix; torchrun starts them.")
    ] = 1,
    expert_parallel: Annotated[
        int, typer.Option(help="Processes that each hold some of the experts whole; torchrun starts them.")
    ] = 1,
    n: Annotated[int, typer.Option(help="Continuations; they share the prompt's KV blocks.")] = 1,
    stop: Annotated[list[str] | None, typer.Option(help="End the output before this text; may be repeated.")] = None,
) -> None:
    """Continue a text.

    The text goes out as the model writes it. To a file or a pipe it is unchanged; on a terminal, control characters
    are shown and not obeyed.

    **Examples**

    - `tinyllm generate "Once upon a time"`
    - `tinyllm generate "The baker" --n 3 --temperature 0.8 --seed 1`
    - `tinyllm generate "The baker" --parts mine`
    - `tinyllm generate "The baker" --device cuda --dtype bfloat16`
    - `tinyllm generate "The baker" --n 32 --temperature 0.8 -O attention_backend=native`
    - `torchrun --nproc-per-node 2 -m tinyllm generate "The baker" --tensor-parallel 2`
    """
    from tinyllm.model_text import ModelText, nowhere, write_continuations
    from tinyllm.sampling_params import SamplingParams

    if unreadable(prompt):
        raise RequestError(f"the prompt holds bytes that are no {sys.getfilesystemencoding()} text")
    params = SamplingParams(
        temperature=temperature, top_k=top_k, top_p=top_p, max_tokens=max_tokens, n=n, seed=seed, stop=tuple(stop or ())
    )
    sizes = [f"tensor_parallel_size={tensor_parallel}", f"expert_parallel_size={expert_parallel}"]
    llm = load(model, engine_options=[*sizes, *(engine_options or ())], parts=parts, device=device, dtype=dtype)
    # Every process of a group computes all of the text; one of them writes it.
    write_continuations(llm.engine, prompt, params, ModelText() if llm.rank == 0 else ModelText(nowhere()))


@app.command()
def chat(
    model: Model = None,
    parts: PartsOption = "reference",
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    engine_options: EngineOptions = None,
) -> None:
    """Talk with the model, one line a turn.

    `/help` lists the commands; `exit` or Ctrl-D leaves; Ctrl-C stops an answer.

    With input or output piped, stdout holds the answers and nothing else.

    **Examples**

    - `tinyllm chat`
    - `tinyllm chat --temperature 0.8 --seed 1`
    - `echo "What is a KV cache?" | tinyllm chat`
    """
    from tinyllm.chat import Chat
    from tinyllm.sampling_params import SamplingParams

    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, max_tokens=max_tokens, seed=seed)
    llm = load(model, engine_options=engine_options, parts=parts, device=device, dtype=dtype)
    Chat(llm, params).run()


def load(model: Path | None, *, engine_options: list[str] | None, **options: str) -> LLM:
    """The engine over a checkpoint. What is said meanwhile goes to stderr: stdout is for the model's text."""
    from tinyllm.config import EngineConfig
    from tinyllm.options import parse_options

    chosen = parse_options(EngineConfig, engine_options or (), ("--model", *(f"--{name}" for name in options)))
    from tinyllm import LLM

    with redirect_stdout(sys.stderr):
        return LLM(model, **options, **chosen)


if __name__ == "__main__":
    main()
