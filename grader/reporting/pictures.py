"""The class report's pictures, made with matplotlib and kept inside the page as SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tinyllm.plots.style import BLUE, FAINT, GREEN, INK, ORANGE, VERMILION, plain

#: Outcome of an exercise over the class -> color and hatch; the hatch tells them apart without color.
KINDS: Mapping[str, tuple[str, str]] = {
    "right": (GREEN, ""),
    "partly right": (ORANGE, "//"),
    "no points": (VERMILION, "xx"),
    "not attempted": ("#D9D9D9", ".."),
}
BINS = 10


def histogram(totals: Sequence[float], max_total: float) -> Figure:
    """How many students have how many points."""
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    ax = figure.subplots()
    edges = [max_total * i / BINS for i in range(BINS + 1)]
    ax.hist(totals, bins=edges, color=BLUE, edgecolor="white", linewidth=1.0)
    ax.set_xlabel(f"points of {max_total:g}")
    ax.set_ylabel("students")
    ax.set_xlim(0, max_total)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if totals:
        middle = median(totals)
        ax.axvline(middle, color=INK, linewidth=1.2, linestyle="--")
        side = "left" if middle < max_total * 0.75 else "right"
        ax.annotate(
            f" median {middle:g} ",
            (middle, 1.0),
            xycoords=("data", "axes fraction"),
            va="bottom",
            ha=side,
            fontsize=9,
        )
    plain(ax)
    return figure


def pass_rates(kinds: Mapping[str, Mapping[str, int]]) -> Figure:
    """For each exercise, how many students have it right, partly right, wrong, or did not try.

    Args:
        kinds: by exercise, how many students are of each of KINDS.
    """
    names = list(kinds)
    figure = Figure(figsize=(7.2, 1.1 + 0.38 * len(names)), layout="constrained")
    ax = figure.subplots()
    left = [0] * len(names)
    for kind, (color, hatch) in KINDS.items():
        counts = [kinds[name].get(kind, 0) for name in names]
        bars = ax.barh(names, counts, left=left, color=color, hatch=hatch, edgecolor="white", label=kind, height=0.7)
        labels = [str(count) if count else "" for count in counts]
        for text in ax.bar_label(bars, labels, label_type="center", fontsize=9, color=INK):
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85})
        left = [a + b for a, b in zip(left, counts, strict=True)]
    ax.invert_yaxis()
    ax.set_xlabel("students")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(ncols=len(KINDS), loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False, fontsize=9, borderaxespad=0.2)
    plain(ax)
    return figure


def mistakes(counts: Mapping[str, int]) -> Figure:
    """The most common known mistakes. `counts` is by the mistake's name, the most common first."""
    figure = Figure(figsize=(7.2, 0.8 + 0.34 * len(counts)), layout="constrained")
    ax = figure.subplots()
    bars = ax.barh(list(counts), list(counts.values()), color=BLUE, height=0.7)
    ax.bar_label(bars, padding=3, fontsize=9)
    ax.invert_yaxis()
    ax.set_xlabel("students")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines["left"].set_color(FAINT)
    plain(ax)
    return figure


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the middle two."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def as_image(figure: Figure, alt: str) -> str:
    """A figure as an HTML image that needs no other file; the same figure gives the same bytes."""
    from grader.framework.rendering import escape

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "grader"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'
