"""Day 2: attention over pages, softmax in parts, and a context that several programs share."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from book.figures.style import (
    C1,
    C2,
    C3,
    FG,
    MUTED,
    SERIES,
    arrow,
    box,
    figure,
    frame,
    label,
    new_diagram,
    slot,
)
from tinyllm.kernels.reference import attend, merge_attention_states

BLOCK_SIZE = 4
BLOCK_IDS = (12, 5, 3)
TOKENS = "Ten tokens"

#: Weights of the ten tokens before they are divided by their sum: exp(score), chosen so that sums can be done by hand.
WEIGHTS = (1, 2, 3, 2, 4, 1, 1, 2, 3, 1)


@figure
def gather_or_walk() -> Figure:
    """Two ways to attend over the pages of one sequence: copy them into one row first, or read each where it lies."""
    drawing, ax = new_diagram(34, 27)
    label(ax, 1, 26.1, "gather, then attend: every K and V is copied", ha="left", weight="bold")
    draw_pages(ax, 22.2)
    for index in range(len(BLOCK_IDS)):
        arrow(ax, (page_left(index) + 2, 21.9), (8 + 4 * index + 2, 19.4), color=SERIES[index])
    for position in range(len(TOKENS)):
        slot(ax, 8 + position, 18.2, f"{position}", SERIES[position // BLOCK_SIZE])
    frame(ax, 8, 18.2, len(TOKENS))
    label(ax, 18.6, 18.7, "a new tensor, in each layer and step", ha="left", size=9)
    arrow(ax, (13, 18.0), (13, 16.7))
    box(ax, 9.5, 15, 7, 1.6, "attention", size=9)

    label(ax, 1, 12.6, "walk the block table: every K and V is read once, where it lies", ha="left", weight="bold")
    draw_pages(ax, 8.7)
    for index in range(len(BLOCK_IDS)):
        arrow(ax, (page_left(index) + 2, 8.4), (6.5 + 8 * index + 2.5, 6.1), color=SERIES[index])
        box(ax, 6.5 + 8 * index, 4.4, 5, 1.6, f"tile {index + 1}", color=SERIES[index], filled=True, size=9)
        arrow(ax, (6.5 + 8 * index + 5.1, 5.2), (6.5 + 8 * index + 7.9, 5.2))
    arrow(ax, (3.4, 5.2), (6.3, 5.2))
    label(ax, 2.0, 5.2, "q", weight="bold")
    label(ax, 31.9, 5.2, "out", weight="bold")
    label(ax, 17, 2.4, "from tile to tile go the highest score, the sum of weights,\nand the weighted sum of V", size=9)
    return drawing


def page_left(index: int) -> float:
    """Where the page with the given place in the block table is drawn; pages lie in the order of their ids."""
    return 5.5 + 8.2 * sorted(BLOCK_IDS).index(BLOCK_IDS[index])


def draw_pages(ax: Axes, bottom: float) -> None:
    """The three pages in the pool, in the order in which they lie there."""
    label(ax, 4.8, bottom + 0.5, "pool", ha="right", size=9)
    for index, block_id in enumerate(BLOCK_IDS):
        left = page_left(index)
        for offset in range(BLOCK_SIZE):
            position = index * BLOCK_SIZE + offset
            filled = position < len(TOKENS)
            slot(ax, left + offset, bottom, f"{position}" if filled else "", SERIES[index] if filled else None)
        frame(ax, left, bottom, BLOCK_SIZE)
        label(ax, left + 2, bottom + 1.7, f"block {block_id}", size=9)
        if index:
            label(ax, 5.5 + 8.2 * index - 2.1, bottom + 0.5, "...")


def page_states() -> list[tuple[float, float]]:
    """Output and sum of weights of each page alone, by the course's own `attend`; V of a token is its position."""
    states = []
    for index in range(len(BLOCK_IDS)):
        own = slice(index * BLOCK_SIZE, min((index + 1) * BLOCK_SIZE, len(TOKENS)))
        k = torch.tensor(WEIGHTS, dtype=torch.float64)[own].log()[:, None, None]
        v = torch.arange(len(TOKENS), dtype=torch.float64)[own][:, None, None]
        out, lse = attend(torch.ones(1, 1, 1, dtype=torch.float64), k, v, torch.ones(1, len(k), dtype=torch.bool))
        states.append((out.item(), lse.exp().item()))
    return states


def merged(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Two states made into one by the course's own `merge_attention_states`."""
    (out_a, sum_a), (out_b, sum_b) = (torch.tensor(state, dtype=torch.float64) for state in (a, b))
    out, lse = merge_attention_states(out_a[None], sum_a.log(), out_b[None], sum_b.log())
    return out.item(), lse.exp().item()


@figure
def merging() -> Figure:
    """The ten tokens' weights by page; each page's output and sum; and how two merges give the whole."""
    drawing, ax = new_diagram(34, 27.5)
    states = page_states()
    first = merged(states[0], states[1])
    last = merged(first, states[2])
    for position, weight in enumerate(WEIGHTS):
        index = position // BLOCK_SIZE
        x = 3.4 + 2.1 * position + 3.0 * index
        box(ax, x, 20.6, 1.5, 1.05 * weight, color=SERIES[index], filled=True)
        label(ax, x + 0.75, 20.6 + 1.05 * weight + 0.6, f"{weight}", size=9)
        label(ax, x + 0.75, 19.9, TOKENS[position] if TOKENS[position] != " " else "␣", size=9)
        label(ax, x + 0.75, 18.7, f"{position}", size=9)
    label(ax, 2.6, 21.6, "weight", ha="right", size=9)
    label(ax, 2.6, 18.7, "V", ha="right", size=9)
    centers = (7.3, 18.7, 28.1)
    for index, (center, (out, total)) in enumerate(zip(centers, states, strict=True)):
        state_box(ax, center, 14.6, f"block {BLOCK_IDS[index]}", out, total, SERIES[index])
    for x in centers[:2]:
        arrow(ax, (x, 14.5), (12.7, 11.5))
    state_box(ax, 12.7, 8.4, "merged", *first, FG)
    arrow(ax, (12.7, 8.3), (19.2, 5.2))
    arrow(ax, (centers[2], 14.5), (21.2, 5.2))
    state_box(ax, 20.2, 2.1, "merged", *last, FG)
    return drawing


def state_box(ax: Axes, center: float, bottom: float, name: str, out: float, total: float, color: str) -> None:
    """A partial result: the average of V so far, and the sum of weights that it stands for."""
    box(
        ax,
        center - 4.1,
        bottom,
        8.2,
        3,
        f"{name}: sum {total:g}\nout {out:g}",
        color=color,
        bold=name == "merged",
        size=9,
    )


@figure
def splits() -> Figure:
    """Programs over time for three contexts: one program a sequence, and one a split with a merge at the end."""
    drawing, ax = new_diagram(34, 22)
    contexts = (("A", 24, C1), ("B", 6, C2), ("C", 4, C3))
    label(ax, 1, 21.2, "one program for each sequence", ha="left", weight="bold")
    for row, (name, length, color) in enumerate(contexts):
        label(ax, 5.6, 19.2 - 1.5 * row, f"program {row + 1}", ha="right", size=9)
        box(ax, 6.2, 18.7 - 1.5 * row, length, 1, name, color=color, filled=True, size=9)
    for row in range(3, 6):
        label(ax, 5.6, 19.2 - 1.5 * row + 0.1, f"{row + 1}", ha="right", size=9)
        label(ax, 6.4, 19.2 - 1.5 * row, "idle", ha="left", size=9, color=MUTED)
    label(ax, 1, 9.2, "splits of at most 6 tiles, and a merge", ha="left", weight="bold")
    parts = [(name, min(6, length - start), color) for name, length, color in contexts for start in range(0, length, 6)]
    for row, (name, length, color) in enumerate(parts):
        label(ax, 5.6, 7.9 - 1.3 * row, f"program {row + 1}" if not row else f"{row + 1}", ha="right", size=9)
        box(ax, 6.2, 7.4 - 1.3 * row, length, 1, name, color=color, filled=True, size=9)
    frame(ax, 12.6, 0.9, 2.2, 7.5)
    ax.text(13.7, 4.6, "reduce", rotation=90, ha="center", va="center", fontsize=9)
    arrow(ax, (16.5, 1.3), (32.5, 1.3), color=MUTED)
    label(ax, 31.6, 2.2, "time", size=9)
    return drawing


@figure
def causal_chunk() -> Figure:
    """What four queries of a chunk see of a context on three pages: all of the first page, a triangle of the rest."""
    drawing, ax = new_diagram(22, 9.6)
    queries, left, top = range(6, 10), 6.5, 5.4
    for index, block_id in enumerate(BLOCK_IDS):
        label(ax, left + BLOCK_SIZE * index + 2, 8.5, f"block {block_id}", size=9)
    for position in range(len(BLOCK_IDS) * BLOCK_SIZE):
        filled = position < len(TOKENS)
        label(ax, left + position + 0.5, 7.1, f"{position}" if filled else "", size=9)
        for row, query in enumerate(queries):
            seen = position <= query
            color = SERIES[position // BLOCK_SIZE] if seen else None
            slot(ax, left + position, top - row, "", color, "" if filled else "xx")
    for index in range(len(BLOCK_IDS)):
        frame(ax, left + BLOCK_SIZE * index, top - 3, BLOCK_SIZE, 4, line=2)
    for row, query in enumerate(queries):
        label(ax, left - 0.5, top + 0.5 - row, f"query at {query}", ha="right", size=9)
    label(ax, left + 2, 1.5, "seen by all:\nno mask", size=9)
    label(ax, left + 8, 1.5, "the chunk's own diagonal:\nmasked", size=9)
    return drawing
