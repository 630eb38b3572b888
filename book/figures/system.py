"""The whole system in one picture, with the part that a chapter is about in color."""

from __future__ import annotations

from matplotlib.figure import Figure

from book.figures.style import C1, FG, MUTED, arrow, box, figure, label, new_diagram

#: Part -> x, y, width, height, text. The unit is a tenth of an inch.
PARTS = {
    "rag": (1, 43.5, 17, 6, "RAG engine\nDay 5"),
    "agent": (19.5, 43.5, 17, 6, "agent and tools\nDay 6"),
    "client": (38, 43.5, 17, 6, "your program"),
    "router": (1, 34.5, 54, 5.5, "OpenAI-compatible API, router over replicas  ·  Day 8"),
    "scheduler": (3.5, 20.5, 23.5, 6.5, "scheduler\nDay 2"),
    "kv_cache": (29, 20.5, 23.5, 6.5, "paged KV cache\nDay 1, long context Day 7"),
    "sampler": (3.5, 11.5, 14.5, 6.5, "sampler, drafts\nDays 0, 4"),
    "model": (20, 11.5, 14.5, 6.5, "model\nDay 0, MoE Day 3"),
    "attention": (36.5, 11.5, 16, 6.5, "attention over pages\nDay 2"),
}


def draw_system(here: frozenset[str]) -> Figure:
    """The system with the parts in `here` filled and framed in bold."""
    bottom = 1.5 if here else 8.0  # room for the legend
    drawing, ax = new_diagram(56, 50.5 - bottom)
    ax.set_ylim(bottom, 50.5)
    box(ax, 1, 9, 54, 22.5, color=MUTED)
    label(ax, 28, 29.2, "engine: one of several replicas", color=FG, weight="bold")
    for name, (x, y, width, height, text) in PARTS.items():
        chosen = name in here
        box(ax, x, y, width, height, text, color=C1 if chosen else FG, filled=chosen, bold=chosen)
    for x in (9.5, 28, 46.5):
        arrow(ax, (x, 43.5), (x, 40))
    arrow(ax, (28, 34.5), (28, 31.5))
    arrow(ax, (27, 23.75), (29, 23.75), style="<|-|>")
    arrow(ax, (23.5, 20.5), (23.5, 18))
    arrow(ax, (44.5, 20.5), (44.5, 18), style="<|-|>")
    arrow(ax, (34.5, 14.75), (36.5, 14.75), style="<|-|>")
    arrow(ax, (20, 14.75), (18, 14.75))
    if here:
        box(ax, 1, 2.5, 3, 3, color=C1, filled=True, bold=True)
        label(ax, 5, 4, "you are here", ha="left")
    return drawing


@figure
def system() -> Figure:
    """Everything that the course builds."""
    return draw_system(frozenset())


@figure
def system_day0() -> Figure:
    """Day 0: the model and the sampler."""
    return draw_system(frozenset({"model", "sampler"}))


@figure
def system_day1() -> Figure:
    """Day 1: the KV cache."""
    return draw_system(frozenset({"kv_cache"}))


@figure
def system_day2() -> Figure:
    """Day 2: the scheduler and attention."""
    return draw_system(frozenset({"scheduler", "attention"}))


@figure
def system_day3() -> Figure:
    """Day 3: the model, whose MLPs are experts now."""
    return draw_system(frozenset({"model"}))


@figure
def system_engine() -> Figure:
    """The life of a request: everything inside the engine."""
    return draw_system(frozenset({"scheduler", "kv_cache", "model", "attention", "sampler"}))
