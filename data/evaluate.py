"""Measures the shipped models on names, phrases and tools that training never drew, and writes their cards."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs as a script, from anywhere

from benchmarks.record import provenance
from data.evaluation.candidate import Candidate
from data.evaluation.card import write_card
from data.evaluation.report import MODELS, as_json, as_rich, lines
from data.evaluation.step_time import step_times
from data.evaluation.suite import Sizes, fingerprint, floors, plain, steps
from tinyllm.model.loader import load_model

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
FIGURES, STEP_TIME = "evaluation.json", "step_time.json"


def main(
    models: Annotated[
        list[str] | None, typer.Argument(help="target, draft, moe; by default all that are there.")
    ] = None,
    checkpoints: Annotated[Path, typer.Option(help="Folder that holds a folder for each model.")] = CHECKPOINTS,
    items: Annotated[int, typer.Option(help="Questions in each row of reading; a row of tools has half.", min=8)] = 200,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; auto takes the GPU where there is one.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Where evaluation.json goes; by default with the models.")] = None,
) -> None:
    """Measure the models, print the table, and write evaluation.json and a card beside each model.

    What was measured of other models with the same number of items is kept.

    Examples:

        python data/evaluate.py

        python data/evaluate.py target --items 40    # a rough idea, sooner

        python data/evaluate.py draft moe --checkpoints /tmp/try --out /tmp/figures
    """
    names = models or [name for name in MODELS if (checkpoints / name / "config.json").is_file()]
    for name in names:
        if name not in MODELS or not (checkpoints / name / "config.json").is_file():
            raise typer.BadParameter(f"{checkpoints / name} is no checkpoint of {', '.join(MODELS)}")
    if not names:
        raise typer.BadParameter(f"{checkpoints} holds no checkpoint; train one with: python data/train.py target")
    folder = out or checkpoints
    folder.mkdir(parents=True, exist_ok=True)
    on = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    console = Console()

    figures = earlier(folder / FIGURES, items) or {"items": items, "models": {}, "floors": plain(floors(Sizes(items)))}
    with progress(console) as bar:
        for name in names:
            figures["models"][name] = measure(checkpoints, name, items, on, bar)
            write(folder / FIGURES, figures)
    if {"target", "draft"} <= {name for name in MODELS if (checkpoints / name / "config.json").is_file()}:
        times = step_times(load_model(checkpoints / "target"), load_model(checkpoints / "draft"))
        write(folder / STEP_TIME, times)
    taken = folder / STEP_TIME
    table = lines(figures, json.loads(taken.read_text(encoding="utf-8")) if taken.is_file() else None)
    figures["models"] = {name: figures["models"][name] for name in MODELS if name in figures["models"]}
    kept = {key: figures[key] for key in ("items", "models", "floors")}
    write(folder / FIGURES, {**provenance(seed=0), **kept, "table": as_json(lines(figures))})
    for name in figures["models"]:
        if (checkpoints / name / "training.json").is_file():
            write_card(checkpoints / name, figures["models"][name], table)
    console.print(as_rich(table))
    console.print(f"wrote {folder / FIGURES}")


def measure(checkpoints: Path, name: str, items: int, device: str, bar: Progress) -> dict[str, Any]:
    """All figures of one model."""
    candidate = Candidate(checkpoints / name, device)
    drafts = name == "draft" and (checkpoints / "target" / "config.json").is_file()
    to_do = steps(candidate, Sizes(items), Candidate(checkpoints / "target", device) if drafts else None)
    figures: dict[str, Any] = {"weights": fingerprint(checkpoints / name)}
    task = bar.add_task(name, total=len(to_do))
    for place, step in to_do:
        bar.update(task, description=f"{name}: {', '.join(place)}")
        within = figures
        for key in place[:-1]:
            within = within.setdefault(key, {})
        within[place[-1]] = plain(step())
        bar.advance(task)
    bar.update(task, description=name)
    return figures


def earlier(path: Path, items: int) -> dict[str, Any] | None:
    """The figures of an earlier run with as many items, to add to."""
    if not path.is_file():
        return None
    figures = json.loads(path.read_text(encoding="utf-8"))
    return figures if figures["items"] == items else None


def write(path: Path, record: dict[str, Any]) -> None:
    """Write JSON; the same record gives the same bytes."""
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def progress(console: Console) -> Progress:
    """A bar for each model, one step for each measure."""
    columns = TextColumn("{task.description:60}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console)


if __name__ == "__main__":
    typer.run(main)
