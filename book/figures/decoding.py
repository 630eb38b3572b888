"""Day 0: what a step computes, what the KV cache saves, and how many bytes it takes."""

from __future__ import annotations

from itertools import pairwise

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from book.figures.models import MODELS
from book.figures.style import C1, C2, C4, MUTED, arrow, figure, frame, label, new_diagram, new_figure, slot
from tinyllm.kv_cache.sizing import kv_bytes_per_token

NUM_PROMPT, NUM_STEPS = 6, 5


@figure
def prefill_decode() -> Figure:
    """The tokens that each step computes for a prompt of 6 tokens, without and with a cache."""
    drawing, ax = new_diagram(28, 17.5)
    for left, cached, title in ((1.2, False, "no cache"), (15.2, True, "KV cache")):
        label(ax, left + 5.5, 16.6, title, weight="bold")
        computed_in_all = 0
        for step in range(NUM_STEPS):
            y = 13.6 - 2 * step
            known = NUM_PROMPT + step
            for position in range(known):
                computed = not cached or step == 0 or position == known - 1
                computed_in_all += computed
                slot(ax, left + position, y, f"{position}", C1 if computed else None)
        frame(ax, left, 13.6, NUM_PROMPT, line=2)
        label(ax, left + 5.5, 3.6, f"{computed_in_all} token computations")
    for step in range(NUM_STEPS):
        label(ax, 26.9, 14.1 - 2 * step, "prefill" if step == 0 else "decode", size=8.5)
    slot(ax, 3, 0.9, "", C1)
    label(ax, 4.4, 1.4, "computed in this step", ha="left")
    slot(ax, 15, 0.9)
    label(ax, 16.4, 1.4, "K and V read from the cache", ha="left")
    return drawing


@figure
def gqa() -> Figure:
    """Eight query heads over two KV heads, as grouped-query attention shares them."""
    drawing, ax = new_diagram(28, 9)
    for head in range(8):
        x = 6.2 + 2.6 * head
        color = C1 if head < 4 else C2
        slot(ax, x, 6.4, f"q{head}", color)
        kv_x = 10.1 if head < 4 else 20.5
        arrow(ax, (x + 0.5, 6.3), (kv_x + 0.5, 3.1), color=MUTED, style="-", line=0.9)
    slot(ax, 10.1, 2, "kv0", C1)
    slot(ax, 20.5, 2, "kv1", C2)
    label(ax, 2.9, 6.9, "query heads\nHq = 8")
    label(ax, 2.9, 2.5, "KV heads\nHkv = 2")
    label(ax, 15.3, 0.6, "only K and V of the KV heads are cached")
    return drawing


@figure
def latencies() -> Figure:
    """TTFT, ITL and latency on the line of one request's time."""
    drawing, ax = new_diagram(56, 17)
    arrow(ax, (2, 6), (54.5, 6), color=MUTED)
    label(ax, 53, 4, "time", size=8.5)
    tokens = (20, 27, 33, 40.5, 47)
    ax.plot([4, 4], [4.5, 7.5], linewidth=2, color=C4)
    label(ax, 4, 2.6, "request\narrives")
    ax.plot(tokens, [6] * len(tokens), "o", markersize=6, color=C1)
    label(ax, 20, 3.2, "first\ntoken")
    label(ax, 47, 3.2, "last\ntoken")
    arrow(ax, (4, 9), (20, 9), style="<|-|>")
    label(ax, 12, 10.6, "TTFT")
    for left, right in pairwise(tokens):
        arrow(ax, (left + 0.4, 9), (right - 0.4, 9), style="<|-|>")
        label(ax, (left + right) / 2, 10.6, "ITL")
    arrow(ax, (4, 13), (47, 13), style="<|-|>")
    label(ax, 25.5, 14.6, "latency")
    return drawing


@figure
def kv_growth() -> Figure:
    """Bytes of KV cache of one sequence against its length."""
    drawing, ax = new_figure(3.1)
    lengths = [2**exponent for exponent in range(8, 18)]
    looks = (("-", "o", C1, (-8, 8), "right"), ("--", "s", C2, (8, -14), "left"))  # a name above its line, one below
    for (name, config, size), (style, marker, color, offset, side) in zip(MODELS, looks, strict=True):
        gib = [length * kv_bytes_per_token(config, size) / 2**30 for length in lengths]
        ax.plot(lengths, gib, style, color=color, marker=marker, markersize=4)
        ax.annotate(name, (lengths[4], gib[4]), offset, textcoords="offset points", ha=side, color=color)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1024:g}K"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y * 1024:g} MiB" if y < 1 else f"{y:g} GiB"))
    ax.set_xlabel("tokens in the sequence")
    ax.set_ylabel("KV cache")
    ax.grid(True, alpha=0.4)
    return drawing
