"""The life of a request: the loop of an engine step, and one flattened batch. The life of a submission."""

from __future__ import annotations

from matplotlib.figure import Figure

from book.figures.attention import BLOCK_IDS, BLOCK_SIZE
from book.figures.style import C1, C2, C3, FG, MUTED, arrow, box, figure, label, new_diagram

STEPS = (
    ("1  arrive", "text to token ids, into the waiting queue"),
    ("2  be admitted", "prefix hit, blocks for the rest"),
    ("3  be scheduled", "a share of the step's token budget"),
    ("4  join the batch", "T tokens of all requests, one metadata object"),
    ("5  run the model", "L layers over the flattened batch"),
    ("6  attend over pages", "write K and V to slots, read through the table"),
    ("7  sample", "logits to one new token for each request"),
    ("8  finish", "text out, full blocks remembered, blocks freed"),
)


@figure
def life_of_a_request() -> Figure:
    """Eight steps; 3 to 7 repeat until the request is done."""
    drawing, ax = new_diagram(56, 63)
    for index, (name, text) in enumerate(STEPS):
        y = 56 - 7.8 * index
        loop = 2 <= index <= 6
        box(ax, 2, y, 17, 5, name, color=C1 if loop else FG, filled=loop)
        label(ax, 20.5, y + 2.5, text, ha="left", size=9)
        if index:
            arrow(ax, (10.5, y + 7.8), (10.5, y + 5.1))
    ax.plot([2, 0.6, 0.6], [11.7, 11.7, 42.9], color=C1, linewidth=1.3)
    arrow(ax, (0.6, 42.9), (1.9, 42.9), color=C1, line=1.3)
    return drawing


HOPS = (
    ("1  found", "pipeline/submissions.py", "who handed in what, for which day"),
    ("2  rebuilt", "pipeline/intake.py", "the student's cells in the notebook as it was handed out"),
    ("3  given out", "pipeline/pool.py", "to the next free worker, as plain data"),
    ("4  driven", "pipeline/work.py", "one jail after the other, one for each exercise"),
    ("5  run", "sandbox/inside.py", "its cells, then the cases that the judge sends"),
    ("6  judged", "running/judge.py", "observations against cases; known mistakes named"),
    ("7  recorded", "marks/record.py", "what was found, written whole: it is graded"),
    ("8  reported", "reporting/export.py", "final marks, page, tables, gradebook"),
)


@figure
def life_of_a_submission() -> Figure:
    """Eight hops: 3 to 6 are made by a worker, 5 in a jail, the others by the one process that writes."""
    drawing, ax = new_diagram(56, 63)
    for index, (name, file, text) in enumerate(HOPS):
        y = 56 - 7.8 * index
        color = C2 if index == 4 else C1 if 2 <= index <= 5 else FG
        box(ax, 2, y, 14, 5, name, color=color, filled=2 <= index <= 5)
        label(ax, 17.5, y + 3.4, text, ha="left", size=9)
        label(ax, 17.5, y + 1.4, f"grader/{file}", ha="left", size=8.5)
        if index:
            arrow(ax, (9, y + 7.8), (9, y + 5.1))
    return drawing


@figure
def flattened_batch() -> Figure:
    """Three requests in one step: a prompt's chunk and two decodes, laid one after another."""
    drawing, ax = new_diagram(28, 13)
    tables = {"A": (0, 6), "B": BLOCK_IDS, "C": (9,)}
    rows = (("A", range(3, 8), C1), ("B", range(9, 10), C2), ("C", range(2, 3), C3))
    label(ax, 5.6, 10.9, "request", ha="right", size=9)
    label(ax, 5.6, 9.2, "positions", ha="right", size=9)
    label(ax, 5.6, 7.5, "slot_mapping", ha="right", size=9)
    x = 6.4
    starts = [0]
    for name, positions, color in rows:
        for position in positions:
            place = tables[name][position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
            for y, text in ((10.4, name), (8.7, f"{position}"), (7.0, f"{place}")):
                box(ax, x + 0.08, y, 1.84, 1, text, color=color, filled=y > 10, size=9)
            x += 2
        starts.append(starts[-1] + len(positions))
    for start in starts:
        ax.plot([6.4 + 2 * start] * 2, [5.6, 11.8], color=MUTED, linewidth=1, linestyle="--")
        label(ax, 6.4 + 2 * start, 4.9, f"{start}", size=9)
    label(ax, 5.6, 4.9, "query_start_loc", ha="right", size=9)
    label(ax, 5.6, 2.9, "context_lens", ha="right", size=9)
    for left, right, length in ((0, 5, 8), (5, 6, 10), (6, 7, 3)):
        label(ax, 6.4 + left + right, 2.9, f"{length}", size=9)
    label(ax, 14, 0.8, "T = 7 tokens of B = 3 sequences; a chunk of a prompt and two decodes")
    return drawing
