"""Trains the shipped models: the target, the draft distilled from it, the mixture of experts grown from it.

Samples are drawn from the seed while training, so there is no data set to fetch. What was saved is not lost when a
run is stopped: --resume goes on from there.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs as a script, from anywhere

from data.tokenizer import train_tokenizer
from data.training.encode import Encoder
from data.training.fitting import TRIAL_STEPS, seconds_a_step, seconds_of
from data.training.loop import Run, train
from data.training.mixture import SHARES
from data.training.presets import MAX_LENGTH, PRESETS
from data.training.progress import Probe
from data.training.recipe import Name, Recipe, hard
from data.training.shapes import interpolate_weights, interpolate_with_upcycled
from data.training.vocabulary import texts
from tinyllm.model.loader import load_model, save_model
from tinyllm.model.tokenizer import Tokenizer

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
RECORD = "training.json"
FURTHER_SHARE = 0.9  # of the way that the weights go in a further run
APART = 0.5  # of what sets a mixture apart from the target that it follows, as much is kept
SAVES = 12  # times a run is measured and saved, at most
SAVING = 0.1  # of the minutes, at most, for that
SPARE = 0.04  # of the minutes, for saving the model and what no trial shows


def main(
    name: Annotated[Name, typer.Argument(help="Which model. Draft and moe are made from the target.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; auto takes the GPU where there is one.")] = "auto",
    preset: Annotated[str, typer.Option(help="auto, cpu (two cores, under three hours) or gpu (minutes).")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder that holds a folder for each model.")] = CHECKPOINTS,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps; by default the preset's.", min=1)] = None,
    minutes: Annotated[float | None, typer.Option(help="As many steps as fit, by a trial first.", min=0.1)] = None,
    seed: Annotated[int, typer.Option(help="Of the samples and the first weights.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the state that was saved last.")] = False,
    further: Annotated[bool, typer.Option("--further", help="Train a finished model on, at lower rates.")] = False,
    upcycled_from: Annotated[
        Path | None, typer.Option(help="With moe --further: the target as it was then; what it learned is added.")
    ] = None,
    share: Annotated[
        float | None,
        typer.Option(help=f"With --further: how much of the way is taken; by default {FURTHER_SHARE}.", min=0, max=1),
    ] = None,
    mostly: Annotated[
        str | None, typer.Option(help=f"With --further: the task that most samples are of: {', '.join(SHARES)}.")
    ] = None,
) -> None:
    """Train one of the shipped models and write its checkpoint in Hugging Face format.

    Examples:

        python data/train.py target --device auto

        python data/train.py target --resume

        python data/train.py target --further --steps 1000    # after phrases or tools were added, say

        python data/train.py moe --further --upcycled-from /tmp/target_before --steps 200    # the mixture follows

        python data/train.py target --further --mostly talk --share 0.5 --minutes 4    # after it forgot some

        python data/train.py draft && python data/train.py moe

        python data/train.py target --minutes 9    # the best that a GPU can do in one nine-minute command

        python data/train.py target --steps 200 --out /tmp/try    # a poor model, in minutes
    """
    started = time.perf_counter()
    if minutes is not None and (steps is not None or resume):
        raise typer.BadParameter("a run has its number of steps by --steps or --resume already", param_hint="--minutes")
    if share is not None and not further:
        raise typer.BadParameter("a first run takes all of its way; give it with --further", param_hint="--share")
    taken = (FURTHER_SHARE if share is None else share) if further else 1.0
    on = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    preset = ("gpu" if on.type == "cuda" else "cpu") if preset == "auto" else preset
    if preset not in PRESETS:
        raise typer.BadParameter(f"{preset!r} is none of auto, {', '.join(PRESETS)}", param_hint="--preset")
    if on.type == "cpu":
        torch.set_num_threads(1)  # each shard of a batch has its own thread
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every length of rows, a tenth of a second each time
    recipe = Recipe(name, PRESETS[preset], out, seed, on, further, upcycled_from, mostly)
    state = recipe.folder / "state.pt"
    check(recipe, state if resume else None)
    recipe.folder.mkdir(parents=True, exist_ok=True)
    if name is not Name.target:
        take_tokenizer(recipe)
    elif not (resume or further):
        make_tokenizer(recipe.folder, seed)
    encoder = Encoder(Tokenizer(recipe.folder))
    probe = Probe.draw(encoder, on)

    saves, deadline = SAVES, math.inf
    if minutes is not None:
        deadline = started + (1 - SPARE) * 60 * minutes
        steps, saves = steps_that_fit(recipe, encoder, probe, state, deadline)
    run = recipe.start(steps or recipe.preset.steps[name])
    if resume:
        run.restore(state, on)
    loss, samples = recipe.lesson(run)
    train(
        run,
        recipe.batches(run, samples, encoder),
        loss,
        device=on,
        state=state,
        save_every=max(1, run.steps // saves),
        probe=probe.answers_right,
        description=name,
        deadline=deadline,
    )
    if further:  # with all of it a model forgets more of what it knew than it learns
        interpolate_weights(run.model, load_model(recipe.folder, device=on), taken)
    if recipe.upcycled_from is not None:
        interpolate_with_upcycled(run.model, load_model(recipe.target, device=on), APART)
    record = record_of(recipe, preset, run, taken)
    save_model(run.model, recipe.folder)
    (recipe.folder / RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
    state.unlink(missing_ok=True)
    print(f"wrote {recipe.folder}; measure it with: python data/evaluate.py")


def check(recipe: Recipe, state: Path | None) -> None:
    """Refuse what cannot be done before anything is written; `state` is what a stopped run goes on from."""
    if state is not None and not state.is_file():
        raise typer.BadParameter(f"there is no {state} to go on from; leave --resume out", param_hint="--resume")
    if recipe.mostly is not None and not (recipe.further and recipe.mostly in SHARES):
        raise typer.BadParameter(f"give it with --further, and one of {', '.join(SHARES)}", param_hint="--mostly")
    if recipe.further and not (recipe.folder / RECORD).is_file():
        raise typer.BadParameter(f"{recipe.folder} has no finished model; leave --further out", param_hint="--further")
    before = recipe.upcycled_from
    if before is not None and not (recipe.further and recipe.name is Name.moe and (before / "config.json").is_file()):
        where = "give it with moe --further, and a checkpoint of the target"
        raise typer.BadParameter(where, param_hint="--upcycled-from")
    if recipe.name is not Name.target:
        files = (*TOKENIZER_FILES, "model.safetensors")
        missing = [file for file in files if not (recipe.target / file).is_file()]
        if missing:
            raise typer.BadParameter(f"{recipe.target} has no {missing[0]}: train the target first", param_hint="name")


def make_tokenizer(folder: Path, seed: int) -> None:
    """Learn the tokenizer and write it; the end tokens go beside it."""
    train_tokenizer(texts(seed), folder, MAX_LENGTH)
    eos = list(PRESETS["cpu"].target.eos_token_ids)
    generation = json.dumps({"eos_token_id": eos, "do_sample": False}, indent=2)
    (folder / "generation_config.json").write_text(generation + "\n", encoding="utf-8")


def take_tokenizer(recipe: Recipe) -> None:
    """The target's tokenizer, copied: models that work together read the same ids."""
    for file in TOKENIZER_FILES:
        shutil.copyfile(recipe.target / file, recipe.folder / file)


def steps_that_fit(recipe: Recipe, encoder: Encoder, probe: Probe, state: Path, deadline: float) -> tuple[int, int]:
    """By a trial: how many steps can be done until `deadline`, and how often to save on the way."""
    trial = recipe.start(TRIAL_STEPS)
    loss, _ = recipe.lesson(trial)
    a_step = seconds_a_step(trial, lambda: recipe.batches(trial, hard, encoder), loss, recipe.device)
    saving = seconds_of(lambda: probe.answers_right(trial.model)) + seconds_of(lambda: trial.save(state))
    left = deadline - time.perf_counter()
    saves = max(1, min(SAVES, 1 + int(SAVING * left / saving)))
    steps = max(1, int((left - saves * saving) / a_step))
    print(f"{a_step * 1000:.0f} ms a step: {steps} steps fit")
    return steps, saves


def record_of(recipe: Recipe, preset: str, run: Run, share: float) -> dict[str, Any]:
    """What `training.json` says: the runs one after another, and their log; `share` is of the way that was taken."""
    earlier: dict[str, Any] = {"runs": [], "log": []}
    if recipe.further:
        earlier = json.loads((recipe.folder / RECORD).read_text(encoding="utf-8"))
    sizes, on_gpu = recipe.preset, recipe.device.type == "cuda"
    this_run = {
        "preset": preset,
        "seed": recipe.seed,
        "steps": run.steps,
        "tokens_per_step_at_most": sizes.shards * sizes.pieces * sizes.tokens_per_piece,
        "minutes": round(run.seconds / 60, 1),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {sizes.shards} threads",
        "torch": torch.__version__,
        "finished": time.strftime("%Y-%m-%d"),
        "follows_target": recipe.upcycled_from is not None,
        "share": share,
        "apart": APART if recipe.upcycled_from is not None else 1.0,
        "mostly": recipe.mostly,
    }
    return {
        "model": recipe.name,
        "shares": SHARES,
        "parameters": sum(weight.numel() for weight in run.model.parameters()),
        "runs": [*earlier["runs"], this_run],
        "log": after(earlier["log"], run.log),
    }


def after(earlier: list[dict[str, Any]], log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One log of two runs: steps and seconds count on."""
    if not earlier:
        return log
    last = earlier[-1]
    later = [
        {**entry, "step": entry["step"] + last["step"], "seconds": round(entry["seconds"] + last["seconds"], 1)}
        for entry in log
    ]
    return earlier + later


if __name__ == "__main__":
    typer.run(main)
