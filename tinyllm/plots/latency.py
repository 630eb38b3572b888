"""Pictures of time: what a token costs as the context grows, and when each token came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.figure import Figure

from tinyllm.plots.style import BLUE, INK, LINES, ORANGE, VERMILION, new_figure, plain


def cost_per_token(context_lens: Sequence[int], seconds: Mapping[str, Sequence[float]]) -> Figure:
    """Lines of the time for one more token against the tokens before it, one a method."""
    figure, ax = new_figure(6.4, 2.9)
    for i, (name, values) in enumerate(seconds.items()):
        milliseconds = [1000 * value for value in values]
        ax.plot(
            context_lens,
            milliseconds,
            LINES[i % len(LINES)],
            color=(VERMILION, BLUE, ORANGE)[i % 3],
            marker="os^"[i % 3],
            linewidth=2,
            label=name,
        )
    ax.set_ylim(0, None)
    ax.set_xlabel("tokens before it")
    ax.set_ylabel("ms for the next token")
    ax.set_title("What one more token costs", fontsize=10)
    ax.legend(frameon=False, fontsize=9)
    plain(ax)
    return figure


def phases(tokens_per_second: Mapping[str, float]) -> Figure:
    """Bars of tokens per second, one a phase."""
    figure, ax = new_figure(6.4, 0.5 * len(tokens_per_second) + 1.2)
    bars = ax.barh(list(tokens_per_second), list(tokens_per_second.values()), color=BLUE)
    ax.bar_label(bars, [f" {rate:,.0f}" for rate in tokens_per_second.values()], fontsize=9)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set_xlabel("tokens/s")
    ax.set_title("Prefill and decode, timed apart", fontsize=10)
    plain(ax)
    return figure


def token_timeline(arrival: float, token_times: Sequence[float]) -> Figure:
    """Draw when each token of one request came, with TTFT and ITL marked.

    Args:
        arrival: when the request came, seconds.
        token_times: when each of its tokens came, on the same clock.
    """
    figure, ax = new_figure(7.4, 1.9)
    times = [1000 * (t - arrival) for t in token_times]
    ax.plot([0, times[-1]], [0, 0], color=INK, linewidth=0.8, zorder=1)
    ax.scatter([0], [0], marker="|", s=500, color=VERMILION, linewidths=3, zorder=2)
    ax.scatter(times, [0] * len(times), s=22, color=BLUE, zorder=3)
    ax.annotate("", (0, 0.5), (times[0], 0.5), arrowprops={"arrowstyle": "<->", "color": ORANGE})
    ax.text(times[0] / 2, 0.62, f"TTFT {times[0]:.1f} ms", fontsize=9, ha="left")
    if len(times) > 1:
        gaps = [b - a for a, b in pairwise(times)]
        ax.text(
            times[-1],
            0.62,
            f"ITL: {min(gaps):.1f} to {max(gaps):.1f} ms, mean {sum(gaps) / len(gaps):.1f}",
            ha="right",
            fontsize=9,
        )
    ax.set_ylim(-0.6, 1.1)
    ax.set_yticks([])
    ax.spines[["left", "top", "right"]].set_visible(False)
    ax.set_xlabel("ms since the request came; one dot a token")
    ax.set_title("One request, token by token", fontsize=10)
    return figure
