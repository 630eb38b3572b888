"""Day 1: blocks, tables, sharing; ten tokens and blocks of four. The course's own objects are drawn."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from book.figures.style import (
    C1,
    C2,
    C3,
    C4,
    C5,
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
from tinyllm.kv_cache.allocator import BlockAllocator
from tinyllm.kv_cache.block_table import BlockTable
from tinyllm.kv_cache.copy_on_write import CopyOnWrite

BLOCK_SIZE, NUM_BLOCKS = 4, 16
TOKENS = "Ten tokens"
NUM_TOKENS = len(TOKENS)


def busy_pool() -> BlockAllocator:
    """A pool of 16 blocks of which only 12, 5, 3, 8 and 14 are free, in this order."""
    allocator = BlockAllocator(NUM_BLOCKS)
    allocator.allocate(NUM_BLOCKS)
    for block_id in (12, 5, 3, 8, 14):
        allocator.free(block_id)
    return allocator


def example_table() -> BlockTable:
    """The ten tokens in a pool that others have nearly filled."""
    table = BlockTable(busy_pool(), BLOCK_SIZE)
    table.append(NUM_TOKENS)
    return table


def legend(ax: Axes, x: float, y: float, entries: Sequence[tuple[str, str | None, str, float]]) -> None:
    """Slots with a text each: (text, color, hatch, units to the next entry)."""
    for text, color, hatch, step in entries:
        slot(ax, x, y, "", color, hatch)
        label(ax, x + 1.4, y + 0.5, text, ha="left", size=9)
        x += step


@figure
def reservation() -> Figure:
    """One request of ten tokens in a reserved row of 24 slots, and in blocks of four."""
    drawing, ax = new_diagram(28, 13.5)
    label(ax, 1.6, 12.6, "one row of max_model_len = 24 slots, reserved at arrival", ha="left")
    for index in range(24):
        if index < NUM_TOKENS:
            slot(ax, 1.6 + index, 10.5, f"{index}", C1)
        elif index < 14:
            slot(ax, 1.6 + index, 10.5, "", C2, "//")
        else:
            slot(ax, 1.6 + index, 10.5, "", C4, "xx")
    frame(ax, 1.6, 10.5, 24, line=1.8)
    label(ax, 1.6, 8.6, "blocks of 4 slots, taken one by one", ha="left")
    for block in range(6):
        for offset in range(BLOCK_SIZE):
            position = block * BLOCK_SIZE + offset
            x = 1.6 + position
            if position < NUM_TOKENS:
                slot(ax, x, 6.5, f"{position}", C1)
            else:
                slot(ax, x, 6.5, "", C4 if position < 12 else None, "xx" if position < 12 else "")
        frame(ax, 1.6 + block * BLOCK_SIZE, 6.5, BLOCK_SIZE, line=1.8 if block < 3 else 0.9)
    label(ax, 19.6, 5.4, "free for other requests", size=9)
    legend(ax, 1.6, 2.9, [("K and V of a token", C1, "", 10), ("reserved: filled later", C2, "//", 10)])
    legend(ax, 1.6, 0.9, [("internal waste: never filled", C4, "xx", 13), ("free", None, "", 5)])
    return drawing


@figure
def block_table() -> Figure:
    """The sequence, its block table and the pool for the ten-token example."""
    table = example_table()
    drawing, ax = new_diagram(34, 23)
    label(ax, 1, 22.2, f"sequence: {TOKENS!r}, positions 0 to {NUM_TOKENS - 1}", ha="left", weight="bold")
    label(ax, 1, 15.6, "block_table", ha="left", weight="bold")
    label(ax, 1, 1.0, "pool: block ids 0 to 15, slots 0 to 63", ha="left", weight="bold")
    for block_id in range(NUM_BLOCKS):
        free = table.allocator.ref_count(block_id) == 0
        for offset in range(BLOCK_SIZE):
            x, y = pool_place(block_id)
            if block_id not in table.block_ids:
                slot(ax, x + offset, y, "", None if free else MUTED)
        frame(ax, *pool_place(block_id), BLOCK_SIZE, line=0.8)
        label(ax, pool_place(block_id)[0] + 2, pool_place(block_id)[1] - 0.9, f"{block_id}", size=9)
    for index, block_id in enumerate(table.block_ids):
        color = SERIES[index]
        left, (pool_left, pool_bottom) = 13.5 + 6.5 * index, pool_place(block_id)
        for offset in range(BLOCK_SIZE):
            position = index * BLOCK_SIZE + offset
            filled = position < table.num_tokens
            slot(ax, left + offset, 19.2, TOKENS[position] if filled else "", color if filled else None)
            slot(ax, pool_left + offset, pool_bottom, f"{position}" if filled else "", color if filled else None)
        frame(ax, left, 19.2, BLOCK_SIZE)
        frame(ax, pool_left, pool_bottom, BLOCK_SIZE, line=2)
        box(ax, left + 1, 14.6, 2, 2, f"{block_id}", color=color, bold=True)
        arrow(ax, (left + 2, 19.0), (left + 2, 16.7), color=color)
        arrow(ax, (left + 2, 14.5), (pool_left + 2, pool_bottom + 1.1), color=color)
    return drawing


def pool_place(block_id: int) -> tuple[float, float]:
    """Where a block is drawn: the pool in two rows of eight."""
    return 1 + BLOCK_SIZE * (block_id % 8), 8.2 - 4.4 * (block_id // 8)


@figure
def copy_on_write() -> Figure:
    """Two samples of one prompt of ten tokens: shared at the fork, then one writes."""
    allocator = busy_pool()
    cow = CopyOnWrite(allocator, copy_block=lambda source, target: None)
    first = BlockTable(allocator, BLOCK_SIZE)
    first.append(NUM_TOKENS)
    second = cow.fork(first)
    drawing, ax = new_diagram(28, 27)
    draw_owners(ax, 17, "1. fork: every block has two owners", allocator, first, second, {})
    cow.append(second, 1)
    draw_owners(ax, 4, "2. B writes token 10: it gets its own last block first", allocator, first, second, {"B": 10})
    legend(ax, 1, 0.9, [("shared", C3, "", 6), ("A alone", C1, "", 6), ("B alone", C2, "", 6)])
    return drawing


def draw_owners(
    ax: Axes,
    bottom: float,
    title: str,
    allocator: BlockAllocator,
    first: BlockTable,
    second: BlockTable,
    new_positions: dict[str, int],
) -> None:
    """Two tables above the blocks that they hold, each block with its number of owners."""
    label(ax, 1, bottom + 9, title, ha="left", weight="bold")
    held = sorted({*first.block_ids, *second.block_ids})
    places = {block_id: 3.6 + 6 * index for index, block_id in enumerate(held)}
    for name, table, y in (("A", first, bottom + 6.7), ("B", second, bottom + 0.6)):
        label(ax, 1.6, y + 0.1, f"{name}", weight="bold")
        for block_id in table.block_ids:
            shift = -0.4 if name == "A" else 0.4
            start = (places[block_id] + 2 + shift, y - 0.1 if name == "A" else y + 0.3)
            end = (places[block_id] + 2 + shift, bottom + 5.2 if name == "A" else bottom + 3.6)
            arrow(ax, start, end, color=C1 if name == "A" else C2)
        ends = [places[block_id] + 2 for block_id in table.block_ids]
        ax.plot([2.6, max(ends)], [y + 0.1, y + 0.1], color=C1 if name == "A" else C2, linewidth=1.1)
    for block_id in held:
        owners = [name for name, table in (("A", first), ("B", second)) if block_id in table.block_ids]
        owner = second if owners == ["B"] else first
        index = owner.block_ids.index(block_id)
        color = {"A": C1, "B": C2}.get("".join(owners), C3)
        for offset in range(BLOCK_SIZE):
            position = index * BLOCK_SIZE + offset
            x, filled = places[block_id] + offset, position < owner.num_tokens
            slot(ax, x, bottom + 3.9, f"{position}" if filled else "", color if filled else None)
            if filled and position in [new_positions.get(name) for name in owners]:
                frame(ax, x, bottom + 3.9, 1, color=FG, line=2)
        frame(ax, places[block_id], bottom + 3.9, BLOCK_SIZE)
        label(ax, places[block_id] - 0.3, bottom + 3.2, f"block {block_id}", ha="left", size=8)
        label(ax, places[block_id] + 4.3, bottom + 3.2, f"{allocator.ref_count(block_id)} ref", ha="right", size=8)


@figure
def prefix_chain() -> Figure:
    """The hash of each full block covers everything before it; two prompts part in their third block."""
    drawing, ax = new_diagram(28, 16)
    rows = (("A", 11.5, ["h0", "h1", "h2"], C1), ("B", 3.5, ["h0", "h1", "h2'"], C2))
    for name, y, hashes, color in rows:
        label(ax, 1.2, y + 0.5, name, weight="bold")
        for index, block_hash in enumerate(hashes):
            x = 2.6 + 8.4 * index
            shared = index < 2
            for offset in range(BLOCK_SIZE):
                slot(ax, x + offset, y, f"{index * BLOCK_SIZE + offset}", C3 if shared else color)
            frame(ax, x, y, BLOCK_SIZE)
            box(ax, x + 4.6, y - 0.2, 2.4, 1.4, block_hash, color=C3 if shared else color, size=9)
            if index:
                arrow(ax, (x - 1.4, y + 0.5), (x - 0.1, y + 0.5), color=MUTED)
    label(ax, 14, 14.8, "each hash is made of the block's tokens and the hash before it")
    label(
        ax,
        14,
        8.0,
        "A and B begin with the same 8 tokens: two blocks are found\nby their hashes, the third is computed",
    )
    legend(ax, 2.6, 0.6, [("found in the cache", C3, "", 9), ("A alone", C1, "", 6), ("B alone", C2, "", 6)])
    return drawing


@figure
def external_waste() -> Figure:
    """Free slots in gaps that are too small, against free blocks of which any will do."""
    drawing, ax = new_diagram(30, 10.5)
    label(ax, 1, 9.8, "rows of different lengths leave gaps", ha="left")
    x = 2.0
    for name, length, color in (("A", 6, C1), ("", 3, None), ("B", 7, C2), ("", 4, None), ("C", 6, C5)):
        for offset in range(length):
            slot(ax, x + offset, 7.6, name, color, "" if color else "xx")
        frame(ax, x, 7.6, length)
        x += length
    label(ax, 15, 6.5, "7 slots are free, yet a request of 5 tokens does not fit", size=9)
    label(ax, 1, 4.6, "blocks need not lie side by side", ha="left")
    owners = ["A", "A", "D", "B", "B", "D", "C"]
    colors = {"A": C1, "B": C2, "C": C5, "D": C3}
    filled = [4, 2, 4, 4, 3, 1, 4]
    for block, (owner, count) in enumerate(zip(owners, filled, strict=True)):
        for offset in range(BLOCK_SIZE):
            slot(
                ax,
                1 + 4 * block + offset,
                2.4,
                owner if offset < count else "",
                colors[owner] if offset < count else None,
            )
        frame(ax, 1 + 4 * block, 2.4, BLOCK_SIZE)
    label(ax, 15, 1.3, "request D of 5 tokens takes any two free blocks", size=9)
    return drawing
