"""Pictures of batching: who computes what in each step, steps on a clock, and the latencies that users see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tinyllm.engine.metrics import RequestMetrics, StepRecord
from tinyllm.engine.report import Distribution
from tinyllm.plots.style import BLUE, FAINT, FREE, INK, ORANGE, SKY, VERMILION, new_figure, plain


def schedule_grid(
    steps: Sequence[Mapping[str, int]], preempted: Sequence[Sequence[str]] = (), title: str = "Who computes what"
) -> Figure:
    """Draw a schedule: a column for each step, a row for each request, in a cell the tokens that it computes.

    Args:
        steps: of each step, tokens by request.
        preempted: of each step, the requests that lost their blocks; marked with a cross.
    """
    names = list(dict.fromkeys(name for step in steps for name in step))
    figure, ax = new_figure(max(4.5, 0.36 * len(steps) + 1.4), 0.36 * len(names) + 1.1)
    for row, name in enumerate(names):
        ax.text(-0.3, -row + 0.5, name, ha="right", va="center", fontsize=9)
        for column, step in enumerate(steps):
            count = step.get(name, 0)
            color = ORANGE if count > 1 else BLUE if count else FREE
            ax.add_patch(Rectangle((column, -row), 1, 1, facecolor=color, edgecolor="white"))
            lost = column < len(preempted) and name in preempted[column]
            text, ink = ("x", VERMILION) if lost else (str(count or ""), "white" if count == 1 else INK)
            ax.text(column + 0.5, -row + 0.5, text, ha="center", va="center", fontsize=8, color=ink)
    for column, step in enumerate(steps):
        ax.text(column + 0.5, 1.35, str(sum(step.values())), ha="center", va="center", fontsize=8, color=FAINT)
    ax.text(-0.3, 1.35, "sum", ha="right", va="center", fontsize=8, color=FAINT)
    handles = [
        Rectangle((0, 0), 1, 1, facecolor=ORANGE, label="several tokens: a chunk of prompt"),
        Rectangle((0, 0), 1, 1, facecolor=BLUE, label="one token: decode"),
    ]
    if any(preempted):
        handles.append(Rectangle((0, 0), 1, 1, facecolor=FREE, label="x: preempted"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    ax.set_xlim(-max(map(len, names)) * 0.3 - 1, len(steps))
    ax.set_ylim(-len(names) + 0.9, 1.8)
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)
    return figure


def step_timeline(runs: Mapping[str, Sequence[StepRecord]]) -> Figure:
    """Draw the steps one after another, a row of axes for each run: a bar a step, as high as its requests are many.

    Steps that compute tokens of prompts are told apart by color and hatch.

    Args:
        runs: the engine's records.
    """
    figure, axes = new_figure(8.4, 1.9 * len(runs), rows=len(runs), sharex=True, sharey=True, squeeze=False)
    for ax, (name, records) in zip(axes[:, 0], runs.items(), strict=True):
        for prompts, color, hatch in ((False, BLUE, ""), (True, ORANGE, "///")):
            steps = {i: r for i, r in enumerate(records) if (r.num_prefill_tokens > 0) is prompts}
            ax.bar(
                list(steps),
                [r.num_running for r in steps.values()],
                1,
                align="edge",
                color=color,
                hatch=hatch,
                edgecolor="white" if prompts else color,
                linewidth=0,
                label="with tokens of prompts" if prompts else "decode only",
            )
        ax.set_title(name, fontsize=10)
        ax.set_ylabel("requests")
        plain(ax)
    axes[0, 0].legend(frameon=False, fontsize=8, loc="upper right")
    axes[-1, 0].set_xlabel("engine step")
    return figure


def request_spans(runs: Mapping[str, Sequence[RequestMetrics]]) -> Figure:
    """Draw a line for each request: light while it waits for its first token, dark from then to its last.

    Args:
        runs: the requests' times, for each run.
    """
    most = max(len(metrics) for metrics in runs.values())
    figure, axes = new_figure(8.4, max(2.4, 0.03 * most + 1.4), len(runs), sharex=True, squeeze=False)
    for ax, (name, metrics) in zip(axes[0], runs.items(), strict=True):
        start = min(item.arrival for item in metrics)
        for row, item in enumerate(sorted(metrics, key=lambda item: item.arrival)):
            arrival, first, last = (t - start for t in (item.arrival, item.token_times[0], item.token_times[-1]))
            ax.plot([arrival, first], [row, row], color=ORANGE, linewidth=1.2, label="waiting" if row == 0 else None)
            ax.plot([first, last], [row, row], color=BLUE, linewidth=2, label="answering" if row == 0 else None)
        ax.invert_yaxis()
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("seconds")
        plain(ax)
    axes[0, 0].set_ylabel("request, by arrival")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower left")
    return figure


def latency_bars(runs: Mapping[str, Mapping[str, Distribution]], title: str = "What users wait for") -> Figure:
    """Bars of median and 99th percentile of latencies in ms, a panel for each latency.

    Args:
        runs: for each run, its latencies by name; the same names in each.
    """
    latencies = list(next(iter(runs.values())))
    figure, axes = new_figure(2.8 * len(latencies), 2.6, len(latencies), squeeze=False)
    for ax, latency in zip(axes[0], latencies, strict=True):
        for i, (kind, color, hatch) in enumerate((("p50", BLUE, ""), ("p99", SKY, "//"))):
            heights = [1000 * getattr(run[latency], kind) for run in runs.values()]
            places = [x + 0.4 * (i - 0.5) for x in range(len(runs))]
            bars = ax.bar(places, heights, 0.38, color=color, hatch=hatch, edgecolor="white", label=kind)
            ax.bar_label(bars, [f"{height:,.0f}" for height in heights], fontsize=8, padding=1)
        ax.set_xticks(range(len(runs)), list(runs), fontsize=8)
        ax.set_title(f"{latency}, ms", fontsize=10)
        ax.margins(y=0.15)
        plain(ax)
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure
