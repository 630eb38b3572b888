"""Colors, hatches and figure making that all pictures share."""

from __future__ import annotations

from typing import Any, Literal, overload

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW = "#CC79A7", "#56B4E9", "#F0E442"
FREE, INK, FAINT = "#F4F4F4", "#222222", "#8A8A8A"

#: One after another for requests, models or runs.
SERIES = (SKY, ORANGE, GREEN, PURPLE, YELLOW, BLUE, VERMILION)
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D")


@overload
def new_figure(
    width: float, height: float, columns: Literal[1] = 1, rows: Literal[1] = 1, **options: Any
) -> tuple[Figure, Axes]: ...
@overload
def new_figure(
    width: float, height: float, columns: int = 1, rows: int = 1, **options: Any
) -> tuple[Figure, np.ndarray[Any, Any]]: ...
def new_figure(width: float, height: float, columns: int = 1, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure (inches) with one axes, or a row or grid of them.

    It is closed at once, so that pyplot does not draw it again when the cell ends.
    """
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)
    plt.close(figure)
    return figure, axes


def plain(ax: Axes) -> None:
    """Leave only the axis lines that carry a scale."""
    ax.spines[["top", "right"]].set_visible(False)


def bare(ax: Axes) -> None:
    """No scales at all: for diagrams."""
    ax.set_axis_off()
    ax.set_aspect("equal")


def series_color(index: int) -> str:
    """The color of the index-th thing in a picture; they repeat after seven, so that a label must tell them apart."""
    return SERIES[index % len(SERIES)]


def visible_text(token: str) -> str:
    """A token's text as it is drawn: a space is an open box, to be seen."""
    return "\u2423" if token == " " else token


def ink_on(color: str) -> str:
    """The text color that is read well on a box of one of the series' colors."""
    return "white" if color in (BLUE, VERMILION) else INK
