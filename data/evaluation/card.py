"""Writes the card of a checkpoint from what training recorded and what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.evaluation.curve import draw_curve
from data.evaluation.passkeys import PARTS
from data.evaluation.report import Line
from data.evaluation.tools import CONSTRAINED
from data.training.mixture import COPYING_AT_FIRST, COPYING_ENDS, FULL_DIFFICULTY
from tinyllm.config import ModelConfig

TEMPLATE = Path(__file__).parent / "card_template.md"
CURVE, CARD = "curve.svg", "card.md"

#: Model -> what it is for, and how it came about.
ABOUT = {
    "target": (
        "The course's language model: it answers from passages with citations, calls tools over several steps, and "
        "talks.",
        "next-token loss, answers at full weight, documents at half of it, prompts at 1/16; Muon for the matrices, "
        "AdamW for the rest; half of the layers first, doubled at half-way with copies that add nothing at first",
    ),
    "draft": (
        "A smaller model that guesses what the target is going to write, for speculative decoding; it has the same "
        "tokenizer.",
        "distilled: cross entropy against the target's distribution, on the samples that the target learned from",
    ),
    "moe": (
        "The same language model as a mixture of experts, for the parts of the course on routing and expert "
        "parallelism.",
        "grown from the target: some of its MLPs became eight copies of themselves behind a new router, and were "
        "trained on with the same loss and a price on uneven routing",
    ),
}


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def percent(rate: Mapping[str, Any] | None) -> str:
    """A rate with its interval: `97.5 (94.3-98.9)`; a dash where there is none."""
    if rate is None or not rate["asked"]:
        return "-"
    return f"{100 * rate['share']:.1f} ({100 * rate['low']:.1f}-{100 * rate['high']:.1f})"


def thresholds(name: str, lines: Sequence[Line]) -> str:
    """The course's bars and what this model reaches."""
    rows = []
    for line in lines:
        if name in line.values:
            met = {True: "yes", False: "**no**", None: "-"}[line.met(name)]
            bounds = (line.spread or {}).get(name)
            between = f" ({bounds[0]:g}-{bounds[1]:g})" if bounds else ""
            measured = f"{line.written(line.values[name])}{between}"
            rows.append((line.measure, measured, line.bar_written(), line.written(line.aim), met, line.note))
    return table(("measure", "measured (95 % interval)", "at least", "aim", "reached", "floor"), rows)


def runs(record: Mapping[str, Any]) -> str:
    """The runs of training, one after another."""
    heads = ("run", "steps", "tokens a step at most", "minutes", "on", "torch", "preset", "seed", "finished", "besides")
    rows = [
        (
            f"{number}, {'from the start' if number == 1 else '`--further`'}",
            f"{run['steps']:,}",
            f"{run['tokens_per_step_at_most']:,}",
            f"{run['minutes']:g}",
            *(run[key] for key in ("device", "torch", "preset", "seed", "finished")),
            besides(run),
        )
        for number, run in enumerate(record["runs"], 1)
    ]
    return table(heads, rows)


def besides(run: Mapping[str, Any]) -> str:
    """What was special about a run; a dash where nothing was."""
    share, apart, mostly = run.get("share", 1.0), run.get("apart", 1.0), run.get("mostly")
    told = (
        "what the target had learned since was added to the weights first" if run.get("follows_target") else "",
        f"mostly {mostly}" if mostly else "",
        f"{100 * share:g} % of the way were taken (arXiv 2109.01903)" if share != 1 else "",
        f"{100 * apart:g} % of what set it apart from the target was kept" if apart != 1 else "",
    )
    return "; ".join(filter(None, told)) or "-"


def shortfalls(name: str, lines: Sequence[Line]) -> str:
    """In words, which bars are missed and by how much."""
    missed = [line for line in lines if line.met(name) is False]
    if not missed:
        return "It reaches every bar that it has."
    parts = [
        f"{line.measure}: {line.written(line.values[name])} where the bar is {line.bar_written()}" for line in missed
    ]
    return f"It falls short of {len(missed)} of its bars. {'; '.join(parts)}."


def reading_rows(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each setting of the questions over passages."""
    columns = ("right", "value", "citation", "word for word", "abstained")
    return [(row, *(percent(rates.get(column)) for column in columns)) for row, rates in figures["reading"].items()]


def tool_rows(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each setting of the tool tasks."""
    columns = ("solved", "valid calls", "first tool")
    rows = figures["tools"] | {f"{row}, constrained": rates for row, rates in figures[CONSTRAINED].items()}
    return [(row, *(percent(rates[column]) for column in columns)) for row, rates in rows.items()]


def passkey_rows(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each length, by quarters."""
    columns = ("right", *(f"in the {part} quarter" for part in PARTS))
    return [
        (row, *(f"{100 * rates[column]['share']:.0f}" for column in columns))
        for row, rates in figures["passkey"].items()
    ]


def own_section(figures: Mapping[str, Any]) -> str:
    """What only a draft or a mixture of experts is measured by."""
    if "acceptance" in figures:
        columns = ("proposed", "accepted", "share", "accepted a step", "tokens a step")
        rows = [(task, *(counts[column] for column in columns)) for task, counts in figures["acceptance"].items()]
        heads = ("the target writes", *columns)
        return f"### As a draft\n\nFour tokens proposed at a time, both models greedy.\n\n{table(heads, rows)}\n\n"
    if "experts" in figures:
        rows = list(figures["experts"]["busiest over mean"].items())
        return (
            "### Experts\n\nThe busiest expert's share over the mean, on the model's own transcripts "
            f"({figures['experts']['tokens']:,} choices a layer); 1 is perfect balance.\n\n"
            f"{table(('layer', 'busiest over mean'), rows)}\n\n"
        )
    return ""


def quotes(samples: Sequence[Mapping[str, str]]) -> str:
    """The samples, each in a block of its own."""
    blocks = []
    for number, sample in enumerate(samples, 1):
        expected = f"\n(expected: {sample['expected']})" if "expected" in sample else ""
        blocks.append(f"**{number}. {sample['title']}**\n\n```text\n{sample['text'].strip()}{expected}\n```")
    return "\n\n".join(blocks)


def write_card(folder: Path, figures: Mapping[str, Any], lines: Sequence[Line]) -> None:
    """Write `card.md` and `curve.svg` into a checkpoint's folder.

    Args:
        folder: the checkpoint, with the `training.json` that training left there.
        figures: the model's part of `evaluation.json`.
        lines: the table of all models.
    """
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    draw_curve(record["log"], folder / CURVE)
    name, config = record["model"], ModelConfig.from_pretrained(folder)
    purpose, recipe = ABOUT[name]
    experts = (
        f"; {config.num_experts} experts of {config.moe_intermediate_size}, {config.num_experts_per_tok} a token, "
        f"in {len(config.sparse_layers)} layers"
        if config.num_experts
        else ""
    )
    card = TEMPLATE.read_text(encoding="utf-8").format(
        name=name,
        purpose=purpose,
        recipe=recipe,
        c=config,
        experts=experts,
        kind="Qwen3-MoE" if config.num_experts else "Qwen3 dense",
        parameters=record["parameters"],
        runs=runs(record),
        predictions=sum(entry["predictions"] for entry in record["log"]),
        mixture=", ".join(f"{task} {100 * share:.0f} %" for task, share in record["shares"].items()),
        copying=f"{100 * COPYING_AT_FIRST:.0f} %",
        copying_ends=f"{100 * COPYING_ENDS:.0f} %",
        hard_from=f"{100 * FULL_DIFFICULTY:.0f} %",
        thresholds=thresholds(name, lines),
        shortfalls=shortfalls(name, lines),
        reading=table(("passages", "right", "value", "citation", "word for word", "abstained"), reading_rows(figures)),
        tools=table(("tasks", "solved", "valid calls", "first tool right"), tool_rows(figures)),
        passkeys=table(("tokens", "right", *(f"{part} quarter" for part in PARTS)), passkey_rows(figures)),
        perplexity=table(
            ("text", "tokens", "a token", "a byte"),
            [(kind, f"{p['tokens']:,}", p["per token"], p["per byte"]) for kind, p in figures["perplexity"].items()],
        ),
        by_hand=table(
            ("set", "figure", "%"),
            [(row, of, percent(rate)) for row, rates in figures["by hand"].items() for of, rate in rates.items()],
        ),
        own=own_section(figures),
        samples=quotes(figures["samples"]),
    )
    (folder / CARD).write_text(card, encoding="utf-8")
