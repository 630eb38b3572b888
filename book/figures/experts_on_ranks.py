"""Day 3: the same ten tokens on two ranks, and where eight experts live on four."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from book.figures.experts import COLORS, LETTERS, NUM_EXPERTS, ROUTES, TOP_K, example_ids
from book.figures.style import (
    C1,
    C2,
    C4,
    FG,
    MUTED,
    WIDTH,
    arrow,
    box,
    figure,
    frame,
    label,
    new_diagram,
    slot,
    tinted_bars,
)
from tinyllm.experts.dispatch import permute
from tinyllm.experts.placement import Placement, place_experts

WORLD_SIZE = 2
TOKENS_A_RANK = len(ROUTES) // WORLD_SIZE
EXPERTS_A_RANK = NUM_EXPERTS // WORLD_SIZE
#: Between two groups of rows, and what the words below a group need.
GAP, LABEL_WIDTH = 0.6, 4.4


def rows_to_send() -> list[list[list[tuple[int, int]]]]:
    """[sender][receiver]: the rows (token, expert) in the order in which `dispatch_all_to_all` sends them."""
    sent = []
    for rank in range(WORLD_SIZE):
        first = rank * TOKENS_A_RANK
        ids = example_ids()[first : first + TOKENS_A_RANK]
        _, pairs, _ = permute(torch.zeros(TOKENS_A_RANK, 1), ids, NUM_EXPERTS)
        rows = [(first + pair // TOP_K, int(ids.flatten()[pair])) for pair in pairs.tolist()]
        sent.append([[row for row in rows if row[1] // EXPERTS_A_RANK == to] for to in range(WORLD_SIZE)])
    return sent


def draw_rows(ax: Axes, x: float, y: float, rows: list[tuple[int, int]]) -> None:
    """Rows side by side, each with its token's letter and its expert's color."""
    for place, (token, expert) in enumerate(rows):
        slot(ax, x + place, y, LETTERS[token], COLORS[expert])
    if rows:
        frame(ax, x, y, len(rows), line=1.6)


@figure
def exchange() -> Figure:
    """Five tokens on each of two ranks: rows sorted by expert, the first all-to-all, and what each rank computes."""
    drawing, ax = new_diagram(36, 22)
    sent = rows_to_send()
    lefts = (1.0, 19.5)
    for rank, left in enumerate(lefts):
        box(ax, left - 0.6, 0.6, 16.6, 20.8, color=MUTED)
        label(ax, left + 7.6, 20.4, f"rank {rank}", weight="bold")
        label(ax, left, 18.9, "its tokens", ha="left", size=9)
        for place in range(TOKENS_A_RANK):
            slot(ax, left + place, 17.1, LETTERS[rank * TOKENS_A_RANK + place], MUTED)
        label(ax, left, 15.6, "its rows, sorted by expert", ha="left", size=9)
        x = left
        for to in range(WORLD_SIZE):
            draw_rows(ax, x, 13.8, sent[rank][to])
            label(ax, x + len(sent[rank][to]) / 2, 13.2, f"to rank {to}", size=8)
            x += len(sent[rank][to]) + 1
    for rank, left in enumerate(lefts):
        experts = range(rank * EXPERTS_A_RANK, (rank + 1) * EXPERTS_A_RANK)
        names = " and ".join(map(str, experts))
        got = [sent[source][rank] for source in range(WORLD_SIZE)]
        label(ax, left, 7.7, f"after the all-to-all, for experts {names}", ha="left", size=9)
        x = left
        for source in range(WORLD_SIZE):
            draw_rows(ax, x, 5.9, got[source])
            label(ax, x, 5.3, f"of rank {source}", ha="left", size=8)
            x += max(len(got[source]) + GAP, LABEL_WIDTH)
        label(ax, left, 3.4, f"its experts compute {sum(map(len, got))} rows; then the", ha="left", size=9)
        label(ax, left, 2.1, "answers go back the way they came", ha="left", size=9)
    # From the middle of what is sent to the middle of where it arrives.
    for source in range(WORLD_SIZE):
        x = lefts[source]
        for to in range(WORLD_SIZE):
            count = len(sent[source][to])
            arrives = lefts[to] + sum(max(len(sent[other][to]) + GAP, LABEL_WIDTH) for other in range(source))
            arrow(ax, (x + count / 2, 12.6), (arrives + count / 2, 8.4))
            x += count + 1
    return drawing


# ---------------------------------------------------------------- placement

#: Pairs of each of eight experts, of 100.
COUNTS = (40, 10, 10, 8, 12, 6, 8, 6)
NUM_RANKS, REDUNDANT = 4, 4


def placements() -> dict[str, Placement]:
    """Three ways to place the eight experts on four ranks."""
    share = len(COUNTS) // NUM_RANKS
    in_order = tuple(tuple(range(rank * share, (rank + 1) * share)) for rank in range(NUM_RANKS))
    return {
        "in order": Placement(in_order),
        "packed": place_experts(COUNTS, NUM_RANKS),
        "4 extra slots": place_experts(COUNTS, NUM_RANKS, REDUNDANT),
    }


@figure
def placement() -> Figure:
    """The load of four ranks under three placements of eight experts."""
    drawing = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    axes = drawing.subplots(1, 3, sharey=True)
    for ax, (name, placed) in zip(axes, placements().items(), strict=True):
        copies = [sum(expert in rank for rank in placed.ranks) for expert in range(len(COUNTS))]
        for place, experts in enumerate(placed.ranks):
            bottom = 0.0
            for expert in experts:
                load = COUNTS[expert] / copies[expert]
                color, hatch = (C2, "//") if copies[expert] > 1 else (C1, "")
                tinted_bars(ax.bar, [place], [load], 0.8, bottom=bottom, color=color, hatch=hatch)
                ax.text(place, bottom + load / 2, str(expert), ha="center", va="center", fontsize=8.5, color=FG)
                bottom += load
        ax.axhline(sum(COUNTS) / NUM_RANKS, color=C4, linewidth=1, linestyle="--")
        ax.set_title(f"{name}: {placed.imbalance(COUNTS):.2f}", fontsize=9.5, color=FG)
        ax.set_xticks(range(NUM_RANKS))
        ax.set_xlabel("rank")
    axes[0].set_ylabel("pairs")
    axes[2].plot([], [], "s", color=C2, label="has several copies")
    axes[2].plot([], [], "--", color=C4, label="mean")
    drawing.legend(loc="outside upper center", ncols=2)
    return drawing
