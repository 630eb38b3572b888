"""Pictures of a mixture of experts: pairs on their way to experts, who is sent where, and who has how much to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from tinyllm.plots.style import (
    BLUE,
    FAINT,
    FREE,
    INK,
    LINES,
    MARKERS,
    VERMILION,
    ink_on,
    new_figure,
    plain,
    series_color,
    visible_text,
)


def dispatch_ribbon(
    tokens: Sequence[str],
    topk_ids: Sequence[Sequence[int]],
    pairs: Sequence[int],
    padded: Mapping[int, Sequence[int]],
) -> Figure:
    """Draw all pairs of a token and an expert in the order of tokens, sorted by expert, and padded to blocks.

    A box is a pair: in it the token, below it the number of the expert, which its color tells too.

    Args:
        tokens: text of each of the T tokens.
        topk_ids: [T, K], the experts of each.
        pairs: the pairs sorted by expert, of `permute`.
        padded: by block size the pairs with padding between them, what is in use of `sorted_token_ids`.
    """
    num_pairs = sum(len(row) for row in topk_ids)
    rows = {"token by token": (1, range(num_pairs)), "sorted by expert": (1, pairs)}
    for size, order in padded.items():
        waste = sum(pair >= num_pairs for pair in order) / len(order)
        rows[f"blocks of {size}: {len(order)} rows, {waste:.0%} of them padding"] = (size, order)
    return _ribbon(tokens, topk_ids, rows, [Patch(facecolor=FREE, edgecolor=FAINT, hatch="///", label="padding")])


def rank_rows(tokens: Sequence[str], topk_ids: Sequence[Sequence[int]], rows: Mapping[str, Sequence[int]]) -> Figure:
    """Draw the pairs that ranks hold, before an exchange and after it.

    Args:
        tokens: text of each of the T tokens.
        topk_ids: [T, K], the experts of each.
        rows: by name of a line, the pairs in the order in which they lie there.
    """
    return _ribbon(tokens, topk_ids, {name: (1, order) for name, order in rows.items()}, [])


def _ribbon(
    tokens: Sequence[str],
    topk_ids: Sequence[Sequence[int]],
    rows: Mapping[str, tuple[int, Sequence[int]]],
    handles: Sequence[Patch],
) -> Figure:
    """Lines of pairs, each with the size of its blocks; a pair that is none of the T * K is padding."""
    top_k = len(topk_ids[0])
    experts = [expert for row in topk_ids for expert in row]
    longest = max(len(order) for _, order in rows.values())
    figure, ax = new_figure(8.4, 0.72 * len(rows) + 0.5)
    for number, (name, (size, order)) in enumerate(rows.items()):
        y = -2.4 * number
        ax.text(0, y + 1.2, name, fontsize=9, va="bottom")
        owners = [experts[pair] if pair < len(experts) else None for pair in order]
        for x, (pair, expert) in enumerate(zip(order, owners, strict=True)):
            text = "" if expert is None else tokens[pair // top_k]
            _draw_pair(ax, x, y, visible_text(text), expert)
        for start in range(0, len(order) if size > 1 else 0, size):
            frame = Rectangle((start, y), size, 1, fill=False, edgecolor=INK, linewidth=1.6, zorder=3)
            ax.add_patch(frame)
        start = 0
        for expert, run in groupby(owners):
            length = len(list(run))
            if expert is not None:
                ax.text(start + length / 2, y - 0.1, str(expert), fontsize=7, ha="center", va="top", color=INK)
            start += length
    handles = [
        *(Patch(facecolor=series_color(e), edgecolor=INK, label=f"expert {e}") for e in sorted(set(experts))),
        *handles,
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)
    ax.set_xlim(-0.2, longest + 0.2)
    ax.set_ylim(-2.4 * (len(rows) - 1) - 0.8, 2.2)
    ax.set_axis_off()
    return figure


def _draw_pair(ax: Axes, x: float, y: float, text: str, expert: int | None) -> None:
    """A box with the text of a token in the color of its expert; None is padding."""
    color, edge, hatch = (FREE, FAINT, "///") if expert is None else (series_color(expert), "white", "")
    ax.add_patch(Rectangle((x, y), 1, 1, facecolor=color, edgecolor=edge, hatch=hatch, linewidth=0.5))
    ink = INK if expert is None else ink_on(color)
    ax.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=7, color=ink)


def router_heat_map(shares: Mapping[str, Sequence[Sequence[float]]], kinds: Sequence[str]) -> Figure:
    """Draw, a panel for each layer, which share of a kind of token goes to each expert; in a cell its percents.

    Args:
        shares: by layer, [kinds, E]; each row adds up to 1.
        kinds: names of the rows.
    """
    columns = min(2, len(shares))
    rows = ceil(len(shares) / columns)
    size = 4.2 * columns, (0.3 * len(kinds) + 0.6) * rows + 0.6
    figure, axes = new_figure(*size, columns, rows, sharex=True, sharey=True, squeeze=False)
    high = max(value for table in shares.values() for row in table for value in row)
    for ax, (layer, table) in zip(axes.flat, shares.items(), strict=False):
        ax.imshow(table, cmap="Blues", vmin=0, vmax=high, aspect="auto")
        for y, row in enumerate(table):
            for x, value in enumerate(row):
                ink = "white" if value > 0.6 * high else INK
                ax.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=ink)
        ax.set_yticks(range(len(kinds)), kinds, fontsize=8)
        ax.set_xticks(range(len(table[0])))
        ax.set_title(layer, fontsize=10)
        ax.tick_params(length=0)
    for ax in axes.flat[len(shares) :]:
        ax.set_axis_off()
    figure.supxlabel("expert (in a cell: % of a kind's pairs)", fontsize=9)
    return figure


def touched_experts(
    batches: Sequence[int], laws: Mapping[str, Sequence[float]], measured: Sequence[float], num_experts: int
) -> Figure:
    """Draw how many experts a batch touches: a line for each law, dots for what was measured.

    Args:
        batches: tokens of a step, rising.
        laws: by name, what each law says for these batches.
        measured: mean over the steps.
        num_experts: E, the most that can be touched.
    """
    figure, ax = new_figure(5.6, 3.2)
    ax.axhline(num_experts, color=FAINT, linewidth=1, linestyle=":")
    ax.text(batches[0], num_experts, "all experts", fontsize=8, va="bottom", color=INK)
    for i, (name, values) in enumerate(laws.items()):
        ax.plot(batches, values, color=(BLUE, VERMILION)[i % 2], linestyle=LINES[i % len(LINES)], label=name)
    ax.plot(batches, measured, MARKERS[0], color=INK, label="measured in the step records")
    ax.set_xscale("log", base=2)
    ax.set_xticks(batches, [str(batch) for batch in batches])
    ax.set_ylim(0, 1.12 * num_experts)
    ax.set_xlabel("tokens in a step")
    ax.set_ylabel("experts touched in a layer")
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    plain(ax)
    return figure


def placement_bars(
    imbalance: Mapping[str, Mapping[str, float]], title: str = "The busiest rank over the mean"
) -> Figure:
    """Bars of the busiest rank's load over the mean load: a group for each placement, in it a bar for each traffic.

    Args:
        imbalance: by placement, then by traffic; the same traffics in each. 1 is balance.
    """
    traffics = list(next(iter(imbalance.values())))
    figure, ax = new_figure(max(5.6, 1.3 * len(imbalance)), 3.0)
    width = 0.8 / len(traffics)
    for i, traffic in enumerate(traffics):
        heights = [group[traffic] for group in imbalance.values()]
        places = [x + width * (i - (len(traffics) - 1) / 2) for x in range(len(imbalance))]
        hatch = ("", "//", "..", "xx")[i % 4]
        bars = ax.bar(
            places, heights, 0.94 * width, color=series_color(i), hatch=hatch, edgecolor="white", label=traffic
        )
        ax.bar_label(bars, [f"{height:.2f}" for height in heights], fontsize=8, padding=1)
    ax.axhline(1, color=INK, linewidth=1, linestyle="--")
    ax.set_xticks(range(len(imbalance)), list(imbalance), fontsize=8)
    ax.set_ylim(0, 1.25 * max(value for group in imbalance.values() for value in group.values()))
    ax.set_ylabel("busiest over mean")
    ax.set_title(title, fontsize=10)
    ax.legend(frameon=False, fontsize=8, loc="upper right", ncols=len(traffics))
    plain(ax)
    return figure
