"""The picture of a training run: the loss, and held-out answers that come out right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from tinyllm.plots.style import LINES, new_figure, plain, series_color


def draw_curve(log: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the log of `training.json` as SVG; the same log gives the same bytes."""
    with plt.rc_context({"svg.hashsalt": "training", "svg.fonttype": "none"}):
        figure, (left, right) = new_figure(8.0, 2.9, 2)
        left.plot([entry["step"] for entry in log], [entry["loss"] for entry in log], color=series_color(5))
        left.set(xlabel="step", ylabel="training loss, nats a prediction", ylim=(0, None))
        measured = [entry for entry in log if "answers_right" in entry]
        steps = [entry["step"] for entry in measured]
        for i, task in enumerate(measured[0]["answers_right"] if measured else ()):
            shares = [100 * entry["answers_right"][task] for entry in measured]
            right.plot(steps, shares, LINES[i % len(LINES)], color=series_color(i + 1), label=task)
        right.set(xlabel="step", ylabel="held-out answers right, %", ylim=(0, 102))
        if measured:
            right.legend(frameon=False, fontsize=8)
        for axes in (left, right):
            plain(axes)
            axes.grid(alpha=0.3)
        figure.savefig(path, metadata={"Date": None})
