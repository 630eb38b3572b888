"""Pictures of the kernels: programs against processors, the running softmax, the tiles of a chunk's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tinyllm.plots.style import BLUE, FAINT, FREE, INK, ORANGE, SKY, VERMILION, new_figure, plain


def running_softmax(scores: Sequence[float], tile: int, highest: Sequence[float], total: Sequence[float]) -> Figure:
    """Draw scores tile by tile, with the highest so far and the sum of 2 ** (score - highest) after each tile.

    Args:
        scores: of all positions, in base 2.
        tile: positions in a tile.
        highest, total: after each tile.
    """
    figure, ax = new_figure(7.2, 2.8)
    ax.bar(range(len(scores)), scores, color=SKY, width=0.8)
    top = max(max(scores), max(highest))
    for number, (high, sum_) in enumerate(zip(highest, total, strict=True)):
        start, stop = number * tile - 0.5, min((number + 1) * tile, len(scores)) - 0.5
        ax.plot(
            [start, stop], [high, high], color=VERMILION, linewidth=2, label="highest so far" if not number else None
        )
        ax.text((start + stop) / 2, top + 1.0, f"total {sum_:.2f}", fontsize=9, ha="center", color=INK)
        if number:
            ax.axvline(start, color=FAINT, linewidth=0.8, linestyle=":")
    ax.set_ylim(top=top + 2.5)
    ax.set_xlabel("position")
    ax.set_ylabel("score, base 2")
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    plain(ax)
    return figure


def programs(counts: Mapping[str, int], num_processors: int) -> Figure:
    """Bars of how many programs a launch has, beside the number of multiprocessors that wait for one."""
    figure, ax = new_figure(7.2, 0.5 + 0.45 * len(counts))
    names = list(counts)
    colors = [ORANGE if count < num_processors else BLUE for count in counts.values()]
    ax.barh(names, list(counts.values()), color=colors)
    for row, count in enumerate(counts.values()):
        busy = min(1.0, count / num_processors)
        ax.text(
            max(count, num_processors) * 1.1,
            row,
            f"{count:,} programs, {busy:.0%} of the processors",
            va="center",
            fontsize=8,
            color=INK,
        )
    ax.axvline(num_processors, color=INK, linewidth=1, linestyle="--", zorder=0)
    ax.set_xscale("log")
    ax.set_xlim(1, 60 * max(counts.values()))
    ax.invert_yaxis()
    ax.set_xlabel(f"programs (dashed: {num_processors} multiprocessors)")
    plain(ax)
    return figure


def score_tiles(own: Sequence[int], tile: int, window: int | None = None) -> Figure:
    """Draw which positions each row of a chunk sees, and which tiles a kernel skips, masks, or takes as they are.

    Args:
        own: position of each row's token, in rising order.
        tile: positions in a tile.
        window: a row sees itself and the `window` - 1 before it; None for all.
    """
    last = max(own) + 1
    distance = np.asarray(own)[:, None] - np.arange(last + -last % tile)[None, :]
    visible = (distance >= 0) & (distance < (window or last))
    figure, ax = new_figure(7.2, 1.2 + 0.09 * len(own))
    counts = {"skipped": 0, "masked": 0, "whole": 0}
    for start in range(0, visible.shape[1], tile):
        part: Any = visible[:, start : start + tile]
        kind = "whole" if part.all() else "masked" if part.any() else "skipped"
        counts[kind] += 1
        ax.add_patch(Rectangle((start, 0), tile, len(own), facecolor=FREE))
        ax.add_patch(Rectangle((start, 0), tile, len(own), fill=False, edgecolor=INK, linewidth=1.2, zorder=3))
        ax.text(start + tile / 2, -0.04 * len(own), kind, ha="center", fontsize=8, color=INK)
    for row, seen in enumerate(visible):
        for position in np.flatnonzero(seen).tolist():
            ax.add_patch(Rectangle((position, row), 1, 1, facecolor=SKY, edgecolor="white", linewidth=0.2))
    ax.set_xlim(0, visible.shape[1])
    ax.set_ylim(len(own), -0.14 * len(own))
    ax.set_xlabel("position of the key")
    ax.set_ylabel("row")
    words = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    ax.set_title(f"Tiles of {tile} positions: {words}", fontsize=10)
    plain(ax)
    return figure
