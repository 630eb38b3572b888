"""Pictures of bytes and waste: what a token costs, and where the slots of a pool go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from tinyllm.kv_cache.sizing import Waste
from tinyllm.plots.style import BLUE, FAINT, FREE, GREEN, INK, LINES, ORANGE, SKY, VERMILION, new_figure, plain

#: Kind of slot -> color and hatch; the same in every picture of waste.
KINDS = {
    "used": (BLUE, ""),
    "reserved": (SKY, "//"),
    "internal": (ORANGE, ".."),
    "external": (VERMILION, "xx"),
}


def bytes_per_token(models: Mapping[str, int]) -> Figure:
    """Bars of KV bytes per token, one a model, with the number at each bar's end."""
    figure, ax = new_figure(7, 0.42 * len(models) + 1.2)
    kib = [size / 1024 for size in models.values()]
    bars = ax.barh(list(models), kib, color=BLUE)
    ax.bar_label(bars, [f" {size:,.0f} KiB" for size in kib], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("KiB per token (K and V, all layers)")
    ax.set_title("What one token costs in the KV cache", fontsize=10)
    ax.margins(x=0.2)
    plain(ax)
    return figure


def reservation(num_slots: int, region: int, requests: Sequence[tuple[int, int]], block_size: int) -> Figure:
    """Draw the same requests in one pool twice: each in a reserved region, and each in blocks.

    Args:
        num_slots: slots in the pool.
        region: slots that contiguous reservation keeps for each request.
        requests: (tokens now, tokens at the end) of each request, in order of arrival.
        block_size: P of the paged row.
    """
    figure, ax = new_figure(0.19 * num_slots + 1.2, 2.3)
    for y, paged in ((1.7, False), (0.0, True)):
        start = 0
        for now, final in requests:
            size = -(-now // block_size) * block_size if paged else region
            if start + size > num_slots:
                break
            end = now if paged else final
            for slot in range(size):
                kind = "used" if slot < now else "reserved" if slot < end else "internal"
                draw_kind(ax, start + slot, y, kind)
            start += size
        unit = block_size if paged else region
        for slot in range(start, num_slots):
            draw_kind(ax, slot, y, "external" if slot >= num_slots - num_slots % unit else None)
        for edge in range(0, num_slots + 1, unit):
            ax.plot([edge, edge], [y - 0.12, y + 1.12], color=INK, linewidth=1.4)
        ax.text(-0.5, y + 0.5, "paged" if paged else "contiguous", ha="right", va="center", fontsize=9)
    handles = [Rectangle((0, 0), 1, 1, facecolor=c, hatch=h, edgecolor="white", label=k) for k, (c, h) in KINDS.items()]
    handles.append(Rectangle((0, 0), 1, 1, facecolor=FREE, edgecolor=FAINT, label="free"))
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=5, frameon=False, fontsize=8)
    ax.set_xlim(-6.5, num_slots + 0.5)
    ax.set_ylim(-0.9, 3)
    ax.set_axis_off()
    ax.set_title(f"One pool of {num_slots} slots, two ways to hand it out", fontsize=10)
    return figure


def draw_kind(ax: Axes, x: float, y: float, kind: str | None) -> None:
    """One slot of the pool; None is free."""
    color, hatch = KINDS[kind] if kind else (FREE, "")
    ax.add_patch(Rectangle((x, y), 1, 1, facecolor=color, hatch=hatch, edgecolor="white", linewidth=0.6))


def waste_stack(wastes: Mapping[str, Waste], title: str = "Where the slots of the pool are") -> Figure:
    """Stacked bars of used, reserved, internal and external slots in per cent of all that are taken or lost."""
    figure, ax = new_figure(7.4, 0.5 * len(wastes) + 1.3)
    for row, waste in enumerate(wastes.values()):
        left, total = 0.0, sum(waste) or 1
        for kind, (color, hatch) in KINDS.items():
            share = 100 * getattr(waste, kind) / total
            ax.barh(
                row,
                share,
                left=left,
                color=color,
                hatch=hatch,
                edgecolor="white",
                label=kind if row == 0 else None,
            )
            left += share
        ax.text(101, row, f"{100 * waste.fraction:.1f} % waste", va="center", fontsize=8)
    ax.set_yticks(range(len(wastes)), list(wastes))
    ax.invert_yaxis()
    ax.set_xlim(0, 122)
    ax.set_xticks(range(0, 101, 20))
    ax.set_xlabel("share of slots, %")
    ax.set_title(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    plain(ax)
    return figure


def waste_bars(waste: Mapping[str, Mapping[str, float]], title: str = "Waste in the KV pool") -> Figure:
    """Bars of waste in per cent, in a group for each policy, a bar for each trace.

    Args:
        waste: trace name to policy name to the share of slots that hold no token, 0 to 1.
    """
    policies = list(next(iter(waste.values())))
    figure, ax = new_figure(7.4, 3.4)
    width = 0.8 / len(waste)
    for i, (trace, shares) in enumerate(waste.items()):
        places = [x + (i - (len(waste) - 1) / 2) * width for x in range(len(policies))]
        heights = [100 * shares[policy] for policy in policies]
        bars = ax.bar(
            places, heights, width, label=trace, color=(BLUE, ORANGE, SKY)[i % 3], hatch=("", "//", "..")[i % 3],
            edgecolor="white",
        )  # fmt: skip
        ax.bar_label(bars, [f"{h:.1f}" for h in heights], fontsize=8, padding=1)
    ax.set_xticks(range(len(policies)), policies)
    ax.set_ylabel("slots that hold no token, %")
    ax.set_title(title, fontsize=10)
    ax.margins(y=0.12)
    ax.legend(frameon=False, fontsize=8)
    plain(ax)
    return figure


def requests_at_once(
    running: Mapping[str, Sequence[int]], title: str = "Requests that hold their KV at once"
) -> Figure:
    """Lines of the number of running requests over the engine's steps, one a policy."""
    figure, ax = new_figure(7.4, 3)
    for i, (name, counts) in enumerate(running.items()):
        color, label = (VERMILION, BLUE, GREEN)[i % 3], f"{name}: at most {max(counts)}"
        ax.plot(counts, LINES[i % len(LINES)], color=color, linewidth=2, label=label)
    ax.legend(frameon=False, fontsize=9)
    ax.set_ylim(0, None)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("engine step")
    ax.set_ylabel("requests")
    ax.set_title(title, fontsize=10)
    plain(ax)
    return figure


def kv_rows(rows: Mapping[str, Any], block_size: int | None = None) -> Figure:
    """Draw rows of K or V as pictures side by side: what lies in the pool, and what is read back.

    Args:
        rows: title to a [rows, D] tensor.
        block_size: draws a line between blocks in the first panel.
    """
    arrays = {name: np.asarray(values, dtype=float) for name, values in rows.items()}
    limit = max(float(np.abs(values).max(initial=0)) for values in arrays.values()) or 1.0
    figure, axes = new_figure(2.6 * len(rows) + 1, 3.4, len(rows), squeeze=False)
    for ax, (name, values) in zip(axes[0], arrays.items(), strict=True):
        image = ax.imshow(values, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("channel")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0][0].set_ylabel("row")
    for edge in range(block_size or 0, len(next(iter(arrays.values()))) if block_size else 0, block_size or 1):
        axes[0][0].axhline(edge - 0.5, color=FAINT, linewidth=0.6)
    figure.colorbar(image, ax=list(axes[0]), label="value", shrink=0.8)
    return figure
