"""Pictures of sharing: which requests hold which block, and the whole pool over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from tinyllm.plots.pool import Table
from tinyllm.plots.style import FREE, INK, SERIES, VERMILION, new_figure, plain, series_color


def sharing_graph(tables: Mapping[str, Table], title: str = "Who holds which block") -> Figure:
    """Draw each request at the left, then its blocks in order, joined by a line.

    A block that several requests hold is drawn once, with a thick red frame and the number of these requests.
    """
    holders: dict[int, list[str]] = {}
    column: dict[int, int] = {}
    for name, table in tables.items():
        for index, block_id in enumerate(table.block_ids):
            holders.setdefault(block_id, []).append(name)
            column.setdefault(block_id, index)
    row = {name: -float(i) for i, name in enumerate(tables)}
    place = {
        block_id: (1.0 + column[block_id], sum(row[name] for name in names) / len(names))
        for block_id, names in holders.items()
    }
    last = max(column.values(), default=0)
    figure, ax = new_figure(max(5.6, min(2.4 + 0.8 * (last + 1), 10)), 0.55 * len(tables) + 1)
    for i, (name, table) in enumerate(tables.items()):
        xs, ys = zip((0.0, row[name]), *(place[block_id] for block_id in table.block_ids), strict=True)
        ax.plot(xs, ys, color=series_color(i), linewidth=2.5, zorder=1)
        ax.text(-0.12, row[name], name, ha="right", va="center", fontsize=9, color=INK)
    for block_id, (x, y) in place.items():
        count = len(holders[block_id])
        edge, width = (VERMILION, 2.4) if count > 1 else (INK, 1)
        ax.scatter(x, y, s=480, marker="s", color=FREE, edgecolors=edge, linewidths=width, zorder=2)
        label = f"{block_id}\nx{count}" if count > 1 else str(block_id)
        ax.text(x, y, label, ha="center", va="center", fontsize=8, color=INK, zorder=3)
    ax.set_xlim(-0.9, last + 1.6)
    ax.set_ylim(-len(tables) + 0.35, 0.65)
    ax.set_axis_off()
    references = sum(map(len, holders.values()))
    blocks = f"{len(holders)} block{'' if len(holders) == 1 else 's'}"
    ax.set_title(f"{title}: {blocks}; without sharing {references}", fontsize=10)
    if references > len(holders):
        words = "red frame, xN: in the tables of N requests"
        ax.text(0.5, 0, words, transform=ax.transAxes, ha="center", va="top", fontsize=8, color=INK)
    return figure


def pool_over_time(
    owners_by_step: Sequence[Sequence[Sequence[str]]],
    steps: Sequence[int] | None = None,
    blocks: range | None = None,
    title: str = "The pool over time",
) -> Figure:
    """Draw the pool as a grid: a column for each step, a row for each block, a color for each request.

    Args:
        owners_by_step: for each step, for each block, the requests whose table holds it (`KVCacheManager.owners`).
        steps: the number of each step; 0, 1, 2... without it.
        blocks: which blocks to draw, for example `range(96)`; all without it.
    """
    steps = steps or range(len(owners_by_step))
    blocks = blocks or range(len(owners_by_step[0]))
    grid = np.zeros((len(blocks), len(owners_by_step)), dtype=int)
    numbers: dict[str, int] = {}
    for step, owners in enumerate(owners_by_step):
        for row, block_id in enumerate(blocks):
            names = owners[block_id]
            if names:
                number = numbers.setdefault(names[0], len(numbers))
                grid[row, step] = 1 if len(names) > 1 else 2 + number % len(SERIES)
    figure, ax = new_figure(8.4, 3.4)
    ax.imshow(
        grid,
        aspect="auto",
        cmap=ListedColormap(["#FFFFFF", INK, *SERIES]),
        vmin=0,
        vmax=len(SERIES) + 1,
        interpolation="nearest",
        extent=(steps[0], steps[-1], blocks[-1] + 1, blocks[0]),
    )
    ax.set_xlabel("engine step")
    ax.set_ylabel("block id")
    ax.set_title(f"{title}: a color is a request, white is free, black is shared", fontsize=10)
    plain(ax)
    return figure
