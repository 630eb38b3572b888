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
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs as a script, from anywhere

from data.tasks.sample import Sample
from data.tokenizer import train_tokenizer
from data.training.batches import Draw, Plan, Shard, batches
from data.training.compiled import compile_layers
from data.training.encode import Encoder
from data.training.fitting import TRIAL_STEPS, seconds_a_step, seconds_of
from data.training.loop import Run, train
from data.training.loss import Loss, balanced_loss, distillation_loss, next_token_loss
from data.training.mixture import SHARES, draw
from data.training.presets import MAX_LENGTH, PRESETS, Preset
from data.training.progress import Probe
from data.training.shapes import add_what_was_learned, move_part_of_the_way, new_model, with_experts
from data.training.vocabulary import texts
from tinyllm.model.loader import load_model, save_model
from tinyllm.model.tokenizer import Tokenizer

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
NUM_EXPERTS, NUM_EXPERTS_PER_TOK, SPARSE_STEP = 8, 2, 5
MOE_RATE = FURTHER_RATE = 0.25  # of the peak learning rates, for a model that begins with what one knows
FURTHER_SHARE = 0.6  # of the way from the weights before further training to those after it
RECORD = "training.json"
BALANCE = 0.02  # what uneven routing costs
SAVES = 12  # times a run is measured and saved, at most
SAVING = 0.1  # of the minutes, at most, for that
SPARE = 0.04  # of the minutes, for saving the model and what no trial shows


class Name(StrEnum):
    """What can be trained; the other two need the target."""

    target = "target"
    draft = "draft"
    moe = "moe"


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
    grown_from: Annotated[
        Path | None, typer.Option(help="With moe --further: the target as it was then; what it learned is added.")
    ] = None,
) -> None:
    """Train one of the shipped models and write its checkpoint in Hugging Face format.

    Examples:

        python data/train.py target --device auto

        python data/train.py target --resume

        python data/train.py target --further --steps 1000    # after phrases or tools were added, say

        python data/train.py moe --further --grown-from /tmp/target_before --steps 200    # the mixture follows

        python data/train.py draft && python data/train.py moe

        python data/train.py target --minutes 9    # the best that a GPU can do in one nine-minute command

        python data/train.py target --steps 200 --out /tmp/try    # a poor model, in minutes
    """
    started = time.perf_counter()
    if minutes is not None and (steps is not None or resume):
        raise typer.BadParameter("a run has its number of steps by --steps or --resume already", param_hint="--minutes")
    on = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    preset = ("gpu" if on.type == "cuda" else "cpu") if preset == "auto" else preset
    if preset not in PRESETS:
        raise typer.BadParameter(f"{preset!r} is none of auto, {', '.join(PRESETS)}", param_hint="--preset")
    if on.type == "cpu":
        torch.set_num_threads(1)  # each shard of a batch has its own thread
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every length of rows, a tenth of a second each time
    chosen = PRESETS[preset]
    folder = out / name
    state = folder / "state.pt"
    folder.mkdir(parents=True, exist_ok=True)
    if resume and not state.is_file():
        raise typer.BadParameter(f"there is no {state} to go on from; leave --resume out", param_hint="--resume")
    if grown_from is not None and not (further and name is Name.moe and (grown_from / "config.json").is_file()):
        raise typer.BadParameter(
            "give it with moe --further, and a checkpoint of the target", param_hint="--grown-from"
        )
    if further and not (folder / RECORD).is_file():
        raise typer.BadParameter(f"{folder} has no finished model; leave --further out", param_hint="--further")
    if name is not Name.target:
        take_tokenizer(out, folder)
    elif not (resume or further):
        make_tokenizer(folder, seed)
    encoder = Encoder(Tokenizer(folder))
    probe = Probe.draw(encoder, on)

    def stream(run: Run, samples: Draw) -> Iterator[list[Shard]]:
        plan = Plan(
            run.steps,
            chosen.shards,
            chosen.pieces,
            chosen.tokens_per_piece,
            MAX_LENGTH,
            seed,
            chosen.steps_per_chunk,
        )
        return batches(plan, samples, encoder, run.step, chosen.workers, on)

    saves, deadline = SAVES, math.inf
    if minutes is not None:
        deadline = started + (1 - SPARE) * 60 * minutes
        trial = start(name, chosen, TRIAL_STEPS, out, seed, on, further, grown_from)
        loss, samples = lesson(name, trial, out, on, further)
        a_step = seconds_a_step(trial, lambda: stream(trial, lambda rng, _: samples(rng, 1.0)), loss, on)
        saving = seconds_of(lambda: probe.answers_right(trial.model)) + seconds_of(lambda: trial.save(state))
        left = deadline - time.perf_counter()
        saves = min(SAVES, 1 + int(SAVING * left / saving))
        steps = max(1, int((left - saves * saving) / a_step))
        print(f"{a_step * 1000:.0f} ms a step: {steps} steps fit")
    run = start(name, chosen, steps or chosen.steps[name], out, seed, on, further, grown_from)
    if resume:
        run.restore(state, on)
    loss, samples = lesson(name, run, out, on, further)
    train(
        run,
        stream(run, samples),
        loss,
        device=on,
        state=state,
        save_every=max(1, run.steps // saves),
        probe=probe.answers_right,
        description=name,
        deadline=deadline,
    )
    if further:  # with all of it a model forgets more of what it knew than it learns
        move_part_of_the_way(run.model, load_model(folder, device=on), FURTHER_SHARE)
    earlier = json.loads((folder / RECORD).read_text(encoding="utf-8")) if further else {"runs": [], "log": []}
    save_model(run.model, folder)
    record = {
        "model": name,
        "shares": SHARES,
        "parameters": sum(weight.numel() for weight in run.model.parameters()),
        "runs": earlier["runs"]
        + [
            {
                "preset": preset,
                "seed": seed,
                "steps": run.steps,
                "tokens_per_step_at_most": chosen.shards * chosen.pieces * chosen.tokens_per_piece,
                "minutes": round(run.seconds / 60, 1),
                "device": torch.cuda.get_device_name() if on.type == "cuda" else f"CPU, {chosen.shards} threads",
                "torch": torch.__version__,
                "finished": time.strftime("%Y-%m-%d"),
                "follows_target": grown_from is not None,
                "share": FURTHER_SHARE if further else 1.0,
            }
        ],
        "log": after(earlier["log"], run.log),
    }
    (folder / RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
    state.unlink(missing_ok=True)
    print(f"wrote {folder}; measure it with: python data/evaluate.py")


def make_tokenizer(folder: Path, seed: int) -> None:
    """Learn the tokenizer and write it; the end tokens go beside it."""
    train_tokenizer(texts(seed), folder, MAX_LENGTH)
    eos = list(PRESETS["cpu"].target.eos_token_ids)
    generation = json.dumps({"eos_token_id": eos, "do_sample": False}, indent=2)
    (folder / "generation_config.json").write_text(generation + "\n", encoding="utf-8")


def take_tokenizer(out: Path, folder: Path) -> None:
    """The target's tokenizer, copied: models that work together read the same ids."""
    missing = [file for file in (*TOKENIZER_FILES, "model.safetensors") if not (out / Name.target / file).is_file()]
    if missing:
        raise typer.BadParameter(f"{out / Name.target} has no {missing[0]}: train the target first", param_hint="name")
    for file in TOKENIZER_FILES:
        shutil.copyfile(out / Name.target / file, folder / file)


def start(
    name: Name,
    preset: Preset,
    steps: int,
    out: Path,
    seed: int,
    device: torch.device,
    further: bool = False,
    grown_from: Path | None = None,
) -> Run:
    """The model before its first step; trained on `further`, the one that is there."""
    if further:
        model = load_model(out / name, device=device).requires_grad_(True)
        if grown_from is not None:
            add_what_was_learned(
                model, load_model(grown_from, device=device), load_model(out / Name.target, device=device)
            )
        return Run(model, steps, peak=FURTHER_RATE, side_by_side=preset.shards)
    if name is Name.target:
        half = new_model(preset.half_target, seed).to(device)
        return Run(half, steps, grow_at=steps // 2, side_by_side=preset.shards)
    if name is Name.draft:
        return Run(new_model(preset.draft, seed).to(device), steps, side_by_side=preset.shards)
    mixture = with_experts(load_model(out / Name.target), NUM_EXPERTS, NUM_EXPERTS_PER_TOK, SPARSE_STEP, seed)
    return Run(mixture.to(device), steps, peak=MOE_RATE, side_by_side=preset.shards)


def lesson(name: Name, run: Run, out: Path, device: torch.device, further: bool = False) -> tuple[Loss, Draw]:
    """What a model learns from: its loss and its samples. One that is trained already needs no easy start."""

    def hard(rng: Random, _: float) -> Sample:
        return draw(rng, 1.0)

    samples = hard if further or name is Name.moe else draw
    if name is Name.target:
        return next_token_loss, samples
    if name is Name.draft:
        teacher = load_model(out / Name.target, device=device)
        if device.type == "cuda":
            compile_layers(teacher)
        return distillation_loss(teacher), samples
    return balanced_loss(run.model, BALANCE), samples


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
