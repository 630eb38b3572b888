"""Pictures of measured serving: tokens per second of each way to serve a load, and what a step costs beside the model.

They draw what `benchmarks/results/throughput.json` and `scheduler_overhead.json` hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinyllm.plots.style import BLUE, INK, LINES, MARKERS, ORANGE, new_figure, plain, series_color


def throughput_bars(result: Mapping[str, Any]) -> Figure:
    """Bars of output tokens per second, one a way to serve the same requests; the thin lines span all runs.

    Args:
        result: of `benchmarks.throughput`.
    """
    rates = result["tokens_per_second"]
    labels = [way_label(name) for name in rates]
    figure, ax = new_figure(7, 0.42 * len(rates) + 1.2)
    for y, (name, rate) in enumerate(rates.items()):
        ours = name.startswith("tinyllm")
        ax.barh(y, rate, color=BLUE if ours else ORANGE, hatch="" if ours else "//", edgecolor="white")
        runs = [result["num_output_tokens"] / seconds for seconds in result["seconds"][name]]
        ax.plot([min(runs), max(runs)], [y, y], color=INK, linewidth=1.5)
        ratio = "" if name == "tinyllm" else f" (tinyllm: {rates['tinyllm'] / rate:.1f} times that)"
        ax.text(max(runs), y, f"  {rate:,.0f}{ratio}", va="center", fontsize=9)
    ax.set_yticks(range(len(rates)), labels)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.3 * max(rates.values()))
    ax.set_xlabel("output tokens/s")
    ax.set_title("The same requests, served in different ways", fontsize=10)
    plain(ax)
    return figure


def way_label(name: str) -> str:
    """What a way to serve is called in a picture, from its key in the result."""
    if name.startswith("padded_"):
        return f"transformers, padded batches of {name.removeprefix('padded_')}"
    return {
        "tinyllm": "tinyllm",
        "tinyllm_torch": "tinyllm, attention in torch",
        "one_by_one": "transformers, one by one",
        "continuous_batching": "transformers, continuous batching",
    }.get(name, name)


def step_overhead(result: Mapping[str, Any]) -> Figure:
    """Lines of the time that a step takes outside the model: against running requests, and against their length.

    Args:
        result: of `benchmarks.scheduler_overhead`.
    """
    rows = result["stand_in"]
    figure, (left, right) = new_figure(7.4, 3, 2)
    contexts = sorted({context for by_context in rows.values() for context in by_context}, key=int)
    for i, context in enumerate(contexts):
        points = {int(number): row[context]["outside_ms"] for number, row in rows.items() if context in row}
        draw_line(left, points, f"{context} tokens each", i)
    for i, (number, by_context) in enumerate(sorted(rows.items(), key=lambda item: int(item[0]))):
        points = {int(context): row["outside_ms"] for context, row in by_context.items()}
        draw_line(right, points, f"{number} running", i)
    for ax, label in ((left, "running requests"), (right, "tokens in the context of each")):
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=10)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.set_xlabel(label)
        ax.legend(frameon=False, fontsize=8)
        plain(ax)
    left.set_ylabel("ms a step outside the model")
    figure.suptitle("What a step costs beside the model", fontsize=10)
    return figure


def draw_line(ax: Axes, points: Mapping[int, float], label: str, index: int) -> None:
    """One line with markers; a single point is left out, it shows no growth."""
    if len(points) < 2:
        return
    xs = sorted(points)
    ax.plot(
        xs,
        [points[x] for x in xs],
        LINES[index % len(LINES)],
        marker=MARKERS[index % len(MARKERS)],
        color=series_color(index + 1),
        label=label,
    )
