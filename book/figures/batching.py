"""Day 2: who computes what in which step. The real engine runs; see _serving.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from book.figures._serving import Arrival, Step, serve, serve_and_record
from book.figures.style import (
    C1,
    C2,
    C3,
    C4,
    C5,
    FG,
    MUTED,
    WIDTH,
    box,
    figure,
    frame,
    label,
    new_diagram,
    slot,
    tinted_bars,
)

SEATS = 3
#: Six requests that are all there at the beginning; their outputs differ, as outputs do.
CROWD = (
    Arrival("A", 0, 4, 9),
    Arrival("B", 0, 3, 3),
    Arrival("C", 0, 5, 4),
    Arrival("D", 0, 4, 6),
    Arrival("E", 0, 3, 2),
    Arrival("F", 0, 2, 5),
)
COLORS = dict(zip("ABCDEF", (C1, C2, C3, C5, C4, MUTED), strict=True))
BUDGET = 512


def seating(steps: Sequence[Step]) -> list[dict[str, int]]:
    """For each step the seat of each request: the lowest that is free when it comes, until it leaves."""
    seats: dict[str, int] = {}
    plan = []
    for step in steps:
        seats = {name: seat for name, seat in seats.items() if name in step}
        for name in step:
            seats.setdefault(name, min(set(range(len(step) + len(seats))) - set(seats.values())))
        plan.append(dict(seats))
    return plan


@figure
def static_and_continuous() -> Figure:
    """Six requests on three seats: batches that wait for their longest, and seats that are given on at once."""
    drawing, ax = new_diagram(28, 15.2)
    runs = (("static batching", 9.0, True), ("continuous batching", 2.8, False))
    for title, bottom, static in runs:
        steps = serve(CROWD, static=static, max_num_seqs=SEATS, max_num_batched_tokens=BUDGET)
        label(ax, 0.6, bottom + 4.2, f"{title}: {len(steps)} steps", ha="left", weight="bold")
        draw_seats(ax, 4.4, bottom, steps)
    slot(ax, 1, 0.6, "A", C1)
    frame(ax, 1, 0.6, 1)
    label(ax, 2.4, 1.1, "step with A's prompt", ha="left", size=9)
    slot(ax, 10, 0.6, "A", C1)
    label(ax, 11.4, 1.1, "decode of A", ha="left", size=9)
    slot(ax, 18.4, 0.6, "", None, "xx")
    label(ax, 19.8, 1.1, "seat without work", ha="left", size=9)
    return drawing


def draw_seats(ax: Axes, left: float, bottom: float, steps: Sequence[Step]) -> None:
    """One row a seat, one column a step."""
    for seat in range(SEATS):
        label(ax, left - 0.4, bottom + 2.5 - seat, f"seat {seat + 1}", ha="right", size=9)
    seen: set[str] = set()
    for index, (step, seats) in enumerate(zip(steps, seating(steps), strict=True)):
        x = left + 1.2 * index
        for seat in range(SEATS):
            names = [name for name, place in seats.items() if place == seat]
            y = bottom + 2 - seat
            slot(ax, x, y, names[0] if names else "", COLORS[names[0]] if names else None, "" if names else "xx")
            if names and names[0] not in seen:
                frame(ax, x, y, 1)
        seen |= set(step)


# ---------------------------------------------------------------- a pool that is too small

#: A is `Ten tokens`; C comes while the others are at work.
THREE = (Arrival("A", 0, 10, 5), Arrival("B", 0, 5, 5), Arrival("C", 1, 6, 4))
POOL, SMALL_BUDGET = 7, 8


@figure
def small_pool() -> Figure:
    """Three requests in a pool of 7 blocks of 4, a budget of 8 tokens: chunks, a preemption, a recompute."""
    steps, records = serve_and_record(THREE, num_blocks=POOL, max_num_batched_tokens=SMALL_BUDGET, max_num_seqs=4)
    drawing, ax = new_diagram(28, 13.4)
    left, width = 7.4, 2.3
    label(ax, left - 0.5, 12.4, "step", ha="right", size=9)
    for row, arrival in enumerate(THREE):
        size = f"{arrival.name}: {arrival.prompt_len} + {arrival.output_len}"
        label(ax, left - 0.5, 10.6 - 2 * row, size, ha="right", size=9)
    label(ax, left - 0.5, 4.4, "tokens in the step", ha="right", size=9)
    label(ax, left - 0.5, 2.9, "free blocks", ha="right", size=9)
    running: set[str] = set()
    computed: Counter[str] = Counter()
    for index, (step, record) in enumerate(zip(steps, records, strict=True)):
        x = left + width * index
        label(ax, x + width / 2, 12.4, f"{index + 1}", size=9)
        label(ax, x + width / 2, 4.4, f"{sum(step.values())}", size=9)
        label(ax, x + width / 2, 2.9, f"{record.num_free_blocks}", size=9)
        preempted = running - set(step) if record.num_preempted else set()
        for row, arrival in enumerate(THREE):
            y, name = 9.8 - 2 * row, arrival.name
            if name in step:
                count = step[name]
                bold = count > 1 or computed[name] < arrival.prompt_len
                box(ax, x + 0.1, y, width - 0.2, 1.6, f"{count}", color=COLORS[name], filled=True, bold=bold)
            elif name in preempted:
                label(ax, x + width / 2, y + 0.8, "out", size=9, weight="bold")
        computed.update(step)
        running = set(step)
    label(ax, 14, 0.9, "bold: prompt tokens, or tokens computed again; out: preempted", size=9)
    return drawing


# ---------------------------------------------------------------- a long prompt among decodes

#: Four requests that are decoding when a prompt of 48 tokens arrives.
DECODERS = tuple(Arrival(name, 0, 1, 14) for name in "ABCD")
LONG = Arrival("long", 3, 48, 3)


@figure
def chunked_prefill() -> Figure:
    """Tokens in each step when a long prompt arrives among decodes: a budget for all of it, and one of 12 tokens."""
    drawing = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = drawing.subplots(1, 2, sharey=True)
    for ax, budget, title in zip(axes, (64, 12), ("budget of 64 tokens", "budget of 12 tokens"), strict=True):
        steps = serve([*DECODERS, LONG], max_num_seqs=8, max_num_batched_tokens=budget)[:12]
        decodes = [sum(count for name, count in step.items() if name != "long") for step in steps]
        prompt = [step.get("long", 0) for step in steps]
        xs = range(1, len(steps) + 1)
        for heights, base, color, hatch in ((decodes, [0] * len(steps), C1, ""), (prompt, decodes, C2, "//")):
            tinted_bars(ax.bar, xs, heights, 0.8, bottom=base, color=color, hatch=hatch)
        ax.set_title(title, fontsize=9.5, color=FG)
        ax.set_xlabel("engine step")
        ax.set_xticks([1, 4, 8, 12])
    axes[0].set_ylabel("tokens in the step")
    axes[1].plot([], [], "s", color=C1, label="decodes of A to D")
    axes[1].plot([], [], "s", color=C2, label="the long prompt")
    axes[1].legend(loc="upper right", fontsize=9)
    return drawing
