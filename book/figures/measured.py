"""Figures of committed measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from book.figures.style import C1, C2, C4, figure, new_figure, tinted_bars

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def result(name: str) -> dict[str, Any]:
    """A committed result."""
    loaded: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


@figure
def waste() -> Figure:
    """Waste of both traces under contiguous reservation and three block sizes."""
    traces = result("kv_memory")["traces"]
    drawing, ax = new_figure(3.3)
    policies = {"contiguous": "reserved row", "block_32": "blocks of 32", "block_16": "of 16", "block_8": "of 8"}
    for shift, (name, color, hatch) in enumerate((("sharegpt", C1, ""), ("alpaca", C2, "//"))):
        heights = [traces[name][policy]["waste_percent"] for policy in policies]
        places = [index + 0.4 * shift - 0.2 for index in range(len(policies))]
        bars = tinted_bars(ax.bar, places, heights, 0.38, color=color, hatch=hatch)
        ax.bar_label(bars, [f"{height:.1f}" for height in heights], padding=2, fontsize=8.5)
        ax.plot([], [], "s", color=color, label={"sharegpt": "ShareGPT lengths", "alpaca": "Alpaca lengths"}[name])
    ax.set_xticks(range(len(policies)), list(policies.values()))
    ax.set_ylabel("slots without a token, %")
    ax.set_ylim(0, 108)
    ax.legend(loc="upper right")
    return drawing


@figure
def running() -> Figure:
    """Running requests over the steps of the engine, reserved rows against blocks of 16."""
    trace = result("kv_memory")["traces"]["sharegpt"]["running_by_step"]
    drawing, ax = new_figure(3.0)
    stride = trace["stride"]
    for policy, style, color, text in (
        ("block_16", "-", C1, "blocks of 16"),
        ("contiguous", "--", C4, "reserved rows of 2,048"),
    ):
        counts = trace[policy]
        ax.plot([stride * index for index in range(len(counts))], counts, style, color=color, label=text)
    ax.set_xlabel("engine step")
    ax.set_ylabel("requests in the pool")
    ax.set_ylim(0, None)
    ax.legend(loc="upper right")
    return drawing
