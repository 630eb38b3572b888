"""How the book's figures look: sentinel colors that the page turns into the reader's theme, and shapes to draw with.

A figure is a function that returns a matplotlib Figure and carries `@figure`; its name is what chapters ask for.
Colors are told apart by letters, hatches or line styles too. The caption stands in the chapter, not in the figure.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import BoxStyle, FancyArrowPatch, FancyBboxPatch, Rectangle

#: Text and paper of the theme, its faint lines, and five colors (see book/preprocessor/figures.py).
FG, BG, MUTED = "#010101", "#fefefe", "#7f7f7e"
C1, C2, C3, C4, C5 = "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"
SERIES = (C1, C2, C3, C5, C4)

#: Fills are tints, so that letters on them can be read in every theme.
TINT = 0.22

#: Figures are narrow, so that a phone can show them with letters of a size that can be read.
WIDTH = 5.6

FIGURES: dict[str, Callable[[], Figure]] = {}

RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tinyllm",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": FG,
    "axes.edgecolor": FG,
    "axes.labelcolor": FG,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "xtick.color": FG,
    "ytick.color": FG,
    "grid.color": MUTED,
    "hatch.color": FG,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def figure(draw: Callable[[], Figure]) -> Callable[[], Figure]:
    """Register a figure under the name of its function."""
    FIGURES[draw.__name__] = draw
    return draw


def new_figure(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure (inches) with one pair of axes."""
    drawing = Figure(figsize=(width, height), layout="constrained")
    return drawing, drawing.add_subplot()


def new_diagram(width: float, height: float, inches: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure of `width` by `height` units, both directions of equal scale, without scales."""
    drawing = Figure(figsize=(inches, inches * height / width))
    ax = drawing.add_axes((0, 0, 1, 1))
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    ax.set_axis_off()
    return drawing, ax


def svg(draw: Callable[[], Figure]) -> str:
    """A figure as SVG text, the same each time."""
    buffer = io.StringIO()
    with matplotlib.rc_context(RC):
        draw().savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def label(
    ax: Axes,
    x: float,
    y: float,
    text: str,
    *,
    ha: Literal["left", "center", "right"] = "center",
    size: float = 9.5,
    color: str = FG,
    weight: str = "normal",
) -> None:
    """A text around a point, or beginning or ending at it."""
    ax.text(x, y, text, ha=ha, va="center", fontsize=size, color=color, weight=weight, linespacing=1.25)


def box(
    ax: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    text: str = "",
    *,
    color: str = FG,
    filled: bool = False,
    bold: bool = False,
    size: float = 9.5,
) -> None:
    """A round-cornered box with a text in its middle."""
    shape = BoxStyle("Round", pad=0, rounding_size=min(width, height) * 0.12)
    if filled:
        tint = FancyBboxPatch((x, y), width, height, boxstyle=shape, facecolor=color, edgecolor="none", alpha=TINT)
        ax.add_patch(tint)
    line = 2 if bold else 1
    outline = FancyBboxPatch((x, y), width, height, boxstyle=shape, facecolor="none", edgecolor=color, linewidth=line)
    ax.add_patch(outline)
    label(ax, x + width / 2, y + height / 2, text, size=size)


def tinted_bars(
    draw: Callable[..., BarContainer], *shape: Any, color: str, hatch: str = "", **where: Any
) -> BarContainer:
    """Bars with a tint under their outline; `draw` is `ax.bar` or `ax.barh`, and takes the rest."""
    draw(*shape, color=color, alpha=TINT, hatch=hatch, **where)
    return draw(*shape, facecolor="none", edgecolor=color, **where)


def value_beside(ax: Axes, x: float, y: float, text: str, size: float = 8.5) -> None:
    """The value of a horizontal bar, to the right of where it ends."""
    ax.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=size)


def slot(ax: Axes, x: float, y: float, text: str = "", color: str | None = None, hatch: str = "") -> None:
    """One KV slot, a unit square; without a color it is empty."""
    if color:
        ax.add_patch(Rectangle((x, y), 1, 1, facecolor=color, edgecolor="none", alpha=TINT))
    ax.add_patch(Rectangle((x, y), 1, 1, facecolor="none", edgecolor=MUTED, linewidth=0.7, hatch=hatch))
    label(ax, x + 0.5, y + 0.46, text, size=9.5 if len(text) < 2 else 8)


def frame(ax: Axes, x: float, y: float, width: float, height: float = 1, color: str = FG, line: float = 1.4) -> None:
    """The outline of a block."""
    ax.add_patch(Rectangle((x, y), width, height, facecolor="none", edgecolor=color, linewidth=line))


def arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    color: str = FG,
    bend: float = 0.0,
    style: str = "-|>",
    line: float = 1.1,
) -> None:
    """An arrow, straight or as an arc."""
    path = f"arc3,rad={bend}"
    patch = FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=10, connectionstyle=path, shrinkA=0, shrinkB=0)
    patch.set(color=color, linewidth=line)
    ax.add_patch(patch)
