"""Pictures of attention: who looks at whom, how partial results merge, and what limits a computation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tinyllm.plots.style import (
    BLUE,
    FREE,
    INK,
    MARKERS,
    ORANGE,
    SKY,
    VERMILION,
    new_figure,
    plain,
    series_color,
    visible_text,
)


def causal_mask(tokens: Sequence[str], num_new: int) -> Figure:
    """Draw which tokens each of the last `num_new` tokens looks at: a row for each, a column for each token."""
    count = len(tokens)
    figure, ax = new_figure(0.42 * count + 1.6, 0.42 * num_new + 0.9)
    for row in range(num_new):
        position = count - num_new + row
        for column, token in enumerate(tokens):
            visible = column <= position
            color = BLUE if column == position else SKY if visible else FREE
            ax.add_patch(Rectangle((column, -row), 1, 1, facecolor=color, edgecolor="white"))
            if visible:
                ink = "white" if column == position else INK
                ax.text(column + 0.5, 0.5 - row, visible_text(token), ha="center", va="center", fontsize=9, color=ink)
        ax.text(-0.2, 0.5 - row, f"{position}", ha="right", va="center", fontsize=8, color=INK)
    ax.set_xlim(-1, count)
    ax.set_ylim(-num_new + 0.9, 1.1)
    ax.set_axis_off()
    ax.set_title(f"Positions {count - num_new} to {count - 1} are new; each sees itself and all before it", fontsize=9)
    return figure


def merged_softmax(weights: Mapping[str, Sequence[float]], shares: Mapping[str, float]) -> Figure:
    """Draw the softmax weights of two or more sets of positions by themselves, and as they are in the merged one.

    Args:
        weights: of each set, its positions' weights, which add up to 1.
        shares: what each set counts in the merged softmax; they add up to 1.
    """
    figure, axes = new_figure(8.4, 2.6, 2, sharey=True)
    start = 0
    for i, (name, values) in enumerate(weights.items()):
        places = range(start, start + len(values))
        color, hatch = (BLUE, ORANGE, SKY)[i % 3], ("", "//", "..")[i % 3]
        axes[0].bar(places, values, color=color, hatch=hatch, edgecolor="white", label=name)
        scaled = [shares[name] * value for value in values]
        label = f"{name}, times {shares[name]:.2f}"
        axes[1].bar(places, scaled, color=color, hatch=hatch, edgecolor="white", label=label)
        start += len(values)
    for ax, title in zip(
        axes, ("each set by itself: adds up to 1 in each", "merged: adds up to 1 in all"), strict=True
    ):
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("position")
        ax.set_xticks(range(start))
        ax.legend(frameon=False, fontsize=8)
        plain(ax)
    axes[0].set_ylabel("softmax weight")
    axes[0].set_ylim(0, 1.4 * max(max(values) for values in weights.values()))  # room for the legends
    return figure


def roofline(dots: Mapping[str, Sequence[float]], flops_per_s: float, bytes_per_s: float) -> Figure:
    """Draw computations under the two limits of a machine, on logarithmic scales.

    Args:
        dots: of each computation its floating point operations, the bytes it must move, and the seconds it took.
        flops_per_s: most operations a second, as measured.
        bytes_per_s: most bytes a second from memory, as measured.
    """
    figure, ax = new_figure(7.4, 3.6)
    ridge = flops_per_s / bytes_per_s
    intensities = [flops / moved for flops, moved, _ in dots.values()]
    xs: Any = np.geomspace(min([*intensities, ridge]) / 3, max([*intensities, ridge]) * 3, 100)
    ax.plot(xs, np.minimum(flops_per_s, xs * bytes_per_s) / 1e9, color=INK, linewidth=1.6)
    ax.axvline(ridge, color=VERMILION, linestyle=":", linewidth=1)
    bottom = ax.get_ylim()[0]
    for i, (name, (flops, moved, seconds)) in enumerate(dots.items()):
        ax.scatter(
            flops / moved,
            flops / seconds / 1e9,
            color=series_color(i),
            edgecolors=INK,
            marker=MARKERS[i % len(MARKERS)],
            s=60,
            zorder=3,
            label=f"{name}: {flops / moved:.1f} operations a byte",
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    lowest = min([flops / seconds / 1e9 for flops, _, seconds in dots.values()], default=bottom)
    if bottom > 0:
        ax.set_ylim(min(bottom, lowest / 2), None)
    ax.set_xlabel("operations for each byte moved")
    ax.set_ylabel("billions of operations/s")
    ax.set_title(
        f"Left of {ridge:.0f} operations a byte the memory is the limit, right of it the arithmetic", fontsize=9
    )
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    plain(ax)
    return figure
