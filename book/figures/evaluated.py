"""Results: what the shipped models can do, from data/checkpoints/evaluation.json."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from book.figures.style import C1, C2, C3, C5, FG, MUTED, figure, new_figure, tinted_bars, value_beside
from tinyllm.paths import project_root

#: Row of the picture -> where its share is, in each model and, where there is one, in the floor named beside it.
FLOOR, UNANSWERED = "regex extractor", "no passage answers"
TASKS = (
    ("read 4 passages, cite", ("reading", "4 passages", "right"), (FLOOR, "4 passages", "right")),
    ("say that no passage answers", ("reading", UNANSWERED, "abstained"), (FLOOR, UNANSWERED, "abstained")),
    ("reading, written by hand", ("by hand", "reading", "right"), (FLOOR, "by hand: reading", "right")),
    ("tool task of 2 calls", ("tools", "2 calls", "solved"), None),
    ("tool task of 4 calls", ("tools", "4 calls", "solved"), None),
    ("tools, written by hand", ("by hand", "tools", "solved"), None),
    ("pass key in 1,900 tokens", ("passkey", "1900 tokens", "right"), None),
)


@cache
def evaluation() -> dict[str, Any]:
    """The committed figures of all models."""
    path = project_root() / "data" / "checkpoints" / "evaluation.json"
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def entry(tree: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """What stands under a path of keys."""
    for key in keys:
        tree = tree[key]
    found: dict[str, Any] = tree
    return found


@figure
def what_models_can_do() -> Figure:
    """Right answers of the target and its draft, with intervals, and of a method without a model where there is one."""
    drawing, ax = new_figure(4.3)
    models = (("target", C1, "", -0.2), ("draft", C2, "//", 0.2))
    for y, (_, keys, floor) in enumerate(TASKS):
        for name, color, hatch, shift in models:
            row = entry(evaluation()["models"][name], keys)
            draw_share(ax, y + shift, row, color, hatch)
        if floor:
            share = 100 * entry(evaluation()["floors"], floor)["share"]
            ax.plot([share, share], [y - 0.42, y + 0.42], color=FG, linewidth=2)
    ax.set_yticks(range(len(TASKS)), [text for text, _, _ in TASKS])
    ax.invert_yaxis()
    ax.set_xlim(0, 112)
    ax.set_xlabel("right, % (thin lines: 95 % intervals)")
    for name, color, _, _ in models:
        ax.plot([], [], "s", color=color, label=name)
    ax.plot([], [], color=FG, linewidth=2, label="regular expressions")
    drawing.legend(loc="outside upper center", ncols=3)
    return drawing


def draw_share(ax: Axes, y: float, row: dict[str, Any], color: str, hatch: str) -> None:
    """One bar with its interval and its value."""
    share = 100 * row["share"]
    tinted_bars(ax.barh, y, share, 0.36, color=color, hatch=hatch)
    high = share
    if "low" in row:
        high = 100 * row["high"]
        ax.plot([100 * row["low"], high], [y, y], color=color, linewidth=1.4)
    value_beside(ax, high, y, f"{share:.0f}")


@figure
def draft_acceptance() -> Figure:
    """Of what the draft proposes, the share that the target accepts, by kind of text."""
    rows = evaluation()["models"]["draft"]["acceptance"]
    drawing, ax = new_figure(2.1)
    for y, (name, row) in enumerate(rows.items()):
        color = C5 if name == "all" else C3
        tinted_bars(ax.barh, y, 100 * row["share"], 0.7, color=color)
        text = f"{100 * row['share']:.0f} %: {row['tokens a step']:.1f} tokens for each step of the target"
        ax.annotate(text, (3, y), va="center", fontsize=9)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("proposed tokens that are accepted, %")
    ax.grid(True, axis="x", alpha=0.4, color=MUTED)
    return drawing
