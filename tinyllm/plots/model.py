"""Pictures of the decoder: rotary angles and scores, shared key/value heads, normalized queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tinyllm.plots.style import BLUE, FAINT, INK, LINES, MARKERS, ORANGE, ink_on, new_figure, plain, series_color


def rope_angles(cos: Any, sin: Any, pairs: Sequence[int]) -> Figure:
    """Draw how far each chosen channel pair has turned at each position.

    Args:
        cos, sin: [T, 1, D] of `rotary_cos_sin` for positions 0 to T - 1.
        pairs: the pairs to draw.
    """
    second = np.shape(cos)[-1] // 2  # the second channel of each pair holds its angle as it is
    cos, sin = np.asarray(cos)[:, 0, second:], np.asarray(sin)[:, 0, second:]
    figure, axes = new_figure(2.1 * len(pairs), 2.5, len(pairs), squeeze=False)
    for ax, pair in zip(axes[0], pairs, strict=True):
        ax.add_patch(Rectangle((-1.1, -1.1), 2.2, 2.2, fill=False, edgecolor="none"))
        ax.plot(np.cos(np.linspace(0, 7, 90)), np.sin(np.linspace(0, 7, 90)), color=FAINT, linewidth=0.6)
        labeled = -1.0
        for position in range(len(cos)):
            ax.plot([0, cos[position, pair]], [0, sin[position, pair]], color=BLUE, linewidth=0.8, alpha=0.6)
            direction = float(np.arctan2(sin[position, pair], cos[position, pair])) % (2 * np.pi)
            if abs(direction - labeled) > 0.15:  # numbers on top of each other cannot be read
                x, y = 1.16 * cos[position, pair], 1.16 * sin[position, pair]
                ax.text(x, y, str(position), fontsize=7, ha="center", va="center", color=INK)
                labeled = direction
        ax.set_xlim(-1.35, 1.35)
        ax.set_ylim(-1.35, 1.35)
        ax.set_aspect("equal")
        ax.set_axis_off()
        ax.set_title(f"pair {pair}", fontsize=10)
    figure.suptitle("RoPE: the direction of one channel pair at each position", fontsize=10)
    return figure


def rope_scores(scores: Mapping[str, Any]) -> Figure:
    """Lines of attention score against distance, one for each position of the query."""
    figure, ax = new_figure(6.4, 2.8)
    for i, (name, values) in enumerate(scores.items()):
        values = np.asarray(values)
        ax.plot(
            values,
            LINES[i % len(LINES)],
            marker=MARKERS[i % len(MARKERS)],
            markevery=4 + i,
            color=series_color(i + 1),
            label=name,
        )
    ax.set_xlabel("distance between query and key, tokens")
    ax.set_ylabel("q . k")
    ax.set_title("RoPE: the score depends on the distance, not on where the two stand", fontsize=10)
    ax.legend(frameon=False, fontsize=8)
    plain(ax)
    return figure


def gqa_heads(num_heads: int, num_kv_heads: int) -> Figure:
    """Draw which query heads read which key/value head."""
    figure, ax = new_figure(max(5.0, 0.62 * num_heads + 1.6), 2)
    group = num_heads // num_kv_heads
    for head in range(num_heads):
        color, kv_x = series_color(head // group), (head // group + 0.5) * group - 0.5
        ax.plot([head, kv_x], [1, 0], color=color, linewidth=2, zorder=1)
        for x, y, label in ((head, 1, f"q{head}"), (kv_x, 0, f"kv{head // group}")):
            ax.scatter(x, y, s=460, marker="s", color=color, edgecolors=INK, zorder=2)
            ax.text(x, y, label, ha="center", va="center", fontsize=8, color=ink_on(color))
    ax.text(-0.7, 1, f"{num_heads} query heads", ha="right", va="center", fontsize=9)
    ax.text(-0.7, 0, f"{num_kv_heads} key/value heads", ha="right", va="center", fontsize=9)
    ax.set_xlim(-3.2, num_heads - 0.3)
    ax.set_ylim(-0.5, 1.5)
    ax.set_axis_off()
    ax.set_title(f"GQA: {group} query heads share one key/value head", fontsize=10)
    return figure


def query_norms(before: Any, after: Any) -> Figure:
    """Histograms of the length of query vectors before and after QK-norm.

    Args:
        before, after: [T, Hq, D] queries.
    """
    figure, axes = new_figure(7.4, 2.6, 2)
    for ax, queries, name, color in ((axes[0], before, "before", ORANGE), (axes[1], after, "after", BLUE)):
        lengths = np.linalg.norm(np.asarray(queries), axis=-1).ravel()
        ax.hist(lengths, bins=np.linspace(0, 1.05 * lengths.max(), 31), color=color)
        ax.set_title(f"{name} q_norm: {lengths.min():.1f} to {lengths.max():.1f}", fontsize=10)
        ax.set_xlabel("length of a query vector")
        ax.set_ylabel("queries")
        plain(ax)
    return figure
