"""Pictures of blocks: which slot of the pool holds which token, and the way from a position to its slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle

from tinyllm.plots.style import FAINT, FREE, INK, VERMILION, bare, ink_on, new_figure, series_color, visible_text


class Table(Protocol):
    """What a picture needs of a block table; `BlockTable` has it."""

    @property
    def block_ids(self) -> Sequence[int]:
        """The blocks in order."""

    @property
    def num_tokens(self) -> int:
        """Positions in use."""


class TableView(NamedTuple):
    """A block table as plain data, for the picture of what should come."""

    block_ids: Sequence[int]
    num_tokens: int


def pool(
    tables: Mapping[str, Table],
    num_blocks: int,
    block_size: int,
    tokens: Mapping[str, Sequence[str]] | None = None,
    columns: int = 4,
    title: str = "The pool: a box is a slot, a frame is a block",
) -> Figure:
    """Draw every slot of the pool in the color of the request whose token it holds.

    Args:
        tables: request name to its block table. A block that several hold has a thick red frame and names them all.
        num_blocks, block_size: N and P.
        tokens: request name to the text of its tokens, to be written into the slots; the others stay without text.
        columns: blocks in a row.
    """
    rows, step = -(-num_blocks // columns), block_size + 0.6
    figure, ax = new_figure(0.36 * columns * step + 0.4, 0.62 * rows + 1)
    owners = owners_of(tables, num_blocks)
    for block_id in range(num_blocks):
        x, y = (block_id % columns) * step, -(block_id // columns) * 1.75
        draw_block(ax, x, y, block_id, owners[block_id], tables, block_size, tokens or {})
    handles = [Patch(facecolor=series_color(i), edgecolor=INK, label=name) for i, name in enumerate(tables)]
    handles.append(Patch(facecolor=FREE, edgecolor=FAINT, label="holds no token"))
    if any(len(names) > 1 for names in owners):
        handles.append(Patch(facecolor="none", edgecolor=VERMILION, linewidth=2.4, label="thick red frame: shared"))
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=6, frameon=False, fontsize=8)
    ax.set_xlim(-0.2, columns * step - 0.4)
    ax.set_ylim(-(rows - 1) * 1.75 - 0.2, 1.6)
    ax.set_title(title, fontsize=10)
    bare(ax)
    return figure


def owners_of(tables: Mapping[str, Table], num_blocks: int) -> list[list[str]]:
    """For each block the names of the tables that hold it."""
    owners: list[list[str]] = [[] for _ in range(num_blocks)]
    for name, table in tables.items():
        for block_id in table.block_ids:
            owners[block_id].append(name)
    return owners


def draw_block(
    ax: Axes,
    x: float,
    y: float,
    block_id: int,
    owners: Sequence[str],
    tables: Mapping[str, Table],
    block_size: int,
    tokens: Mapping[str, Sequence[str]],
) -> None:
    """One block: its number and owners, its P slots with their tokens, and a frame."""
    shared = len(owners) > 1
    ax.text(x, y + 1.12, f"{block_id}: {', '.join(owners)}" if owners else str(block_id), fontsize=7, color=INK)
    # The owner with most tokens knows what is in each slot: those that share a block agree on the rest.
    owner = max(owners, key=lambda name: tables[name].num_tokens, default=None)
    for offset in range(block_size):
        text, color = "", FREE
        if owner is not None:
            table = tables[owner]
            position = list(table.block_ids).index(block_id) * block_size + offset
            if position < table.num_tokens:
                color = series_color(list(tables).index(owner))
                text = tokens[owner][position] if owner in tokens else ""
        draw_slot(ax, x + offset, y, color, text)
    ax.add_patch(
        Rectangle(
            (x, y),
            block_size,
            1,
            fill=False,
            edgecolor=VERMILION if shared else INK if owner else FAINT,
            linewidth=2.4 if shared else 1,
        )
    )


def draw_slot(ax: Axes, x: float, y: float, color: str, text: str, height: float = 1.0) -> None:
    """One slot with the text of its token."""
    ax.add_patch(Rectangle((x, y), 1, height, facecolor=color, edgecolor="white", linewidth=0.8))
    ax.text(x + 0.5, y + height / 2, visible_text(text), ha="center", va="center", fontsize=9, color=ink_on(color))


def block_table(
    table: Table,
    tokens: Sequence[str],
    num_blocks: int,
    block_size: int,
    title: str = "A block table: which block holds which positions",
) -> Figure:
    """Draw a sequence's tokens in order, the pool in memory order, and the block table as arrows between the two."""
    total = num_blocks * block_size
    figure, ax = new_figure(0.15 * total + 0.9, 2.9)
    for block_id in range(num_blocks):
        start, mine = block_id * block_size, block_id in table.block_ids
        ax.add_patch(Rectangle((start, 0), block_size, 1.6, facecolor=FREE, edgecolor=FAINT, linewidth=0.6))
        ax.text(start + block_size / 2, -0.9, str(block_id), ha="center", fontsize=9, color=INK if mine else FAINT)
    left = (total - len(table.block_ids) * (block_size + 1)) / 2
    for index, block_id in enumerate(table.block_ids):
        above, below = left + index * (block_size + 1), block_id * block_size
        for offset in range(block_size):
            position = index * block_size + offset
            color, text = (series_color(index), tokens[position]) if position < table.num_tokens else (FREE, "")
            draw_slot(ax, above + offset, 7, color, text, height=1.6)
            draw_slot(ax, below + offset, 0, color, text, height=1.6)
        for corner in ((above, 7), (below, 0)):
            ax.add_patch(Rectangle(corner, block_size, 1.6, fill=False, edgecolor=INK, linewidth=1.1))
        middle = block_size / 2
        ax.text(above + middle, 9.3, f"{index}: {block_id}", ha="center", fontsize=9, color=INK)
        ends = (above + middle, 6.8), (below + middle, 1.8)
        ax.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=10, color=INK, shrinkA=0, shrinkB=0))
    for height, label in ((9.3, "index: block id"), (7.5, "sequence"), (0.5, "pool"), (-0.9, "block id")):
        ax.text(-1, height, label, ha="right", fontsize=9, color=INK)
    ax.set_xlim(-10.5, total + 0.5)
    ax.set_ylim(-1.6, 10.6)
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)
    return figure
