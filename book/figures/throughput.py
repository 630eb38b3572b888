"""Results: tokens per second beside transformers, and where the engine's time goes, as committed."""

from __future__ import annotations

from matplotlib.figure import Figure

from book.figures.measured import result
from book.figures.style import C1, C2, C3, C4, C5, MUTED, figure, new_figure, tinted_bars, value_beside
from tinyllm.plots.serving import way_label

#: Part of a step -> what it is called; the first three are the model.
PARTS = {
    "matrices": "products with the weights",
    "attention": "attention",
    "rest_of_model": "the rest of the model",
    "schedule": "schedule",
    "metadata": "lay out the batch",
    "attention_plan": "plan attention",
    "sampling": "sample",
    "bookkeeping": "bookkeeping, text",
}


@figure
def throughput() -> Figure:
    """Output tokens per second of each way to serve the same requests; thin lines span the rounds."""
    measured = result("throughput")
    rates = measured["tokens_per_second"]
    drawing, ax = new_figure(0.34 * len(rates) + 0.7)
    for y, (name, rate) in enumerate(rates.items()):
        color, hatch = (C1, "") if name.startswith("tinyllm") else (C2, "//")
        tinted_bars(ax.barh, y, rate, 0.72, color=color, hatch=hatch)
        runs = [measured["num_output_tokens"] / seconds for seconds in measured["seconds"][name]]
        ax.plot([min(runs), max(runs)], [y, y], color=color, linewidth=2)
        value_beside(ax, max(rate, *runs), y, f"{rate:,.0f}", size=9)
    labels = [way_label(name).replace("transformers, ", "") for name in rates]
    ax.set_yticks(range(len(rates)), labels)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.25 * max(rates.values()))
    ax.set_xlabel("output tokens per second")
    ax.plot([], [], "s", color=C1, label="this engine")
    ax.plot([], [], "s", color=C2, label="transformers")
    ax.legend(loc="lower right")
    return drawing


@figure
def where_time_goes() -> Figure:
    """Shares of an engine step, and the floor: the least that the machine could need for the same work."""
    profile = result("throughput")["profile"]
    shares = {text: 100 * profile["parts"][name]["share"] for name, text in PARTS.items()}
    drawing, ax = new_figure(3.3)
    colors = (C1, C2, C3, *[C5] * (len(shares) - 3), C4)
    names = [*shares, "all of it, at the machine's floor"]
    values = [*shares.values(), 100 * profile["floor"]["floor_share"]]
    for y, (value, color) in enumerate(zip(values, colors, strict=True)):
        tinted_bars(ax.barh, y, value, 0.72, color=color, hatch="xx" if color == C4 else "")
        value_beside(ax, value, y, f"{value:.1f} %", size=9)
    ax.axhline(len(shares) - 0.5, color=MUTED, linewidth=0.8)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.2 * max(values))
    ax.set_xlabel("share of the run's time, %")
    return drawing
