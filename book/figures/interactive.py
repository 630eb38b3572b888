"""What stands in for an interactive picture where there is no script: one of its states, by the course's own parts."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from book.figures.style import C1, C2, FG, MUTED, arrow, box, figure, frame, label, new_diagram, slot
from tinyllm.kernels.reference import merge_attention_states
from tinyllm.kv_cache.allocator import BlockAllocator
from tinyllm.kv_cache.block_table import BlockTable
from tinyllm.kv_cache.copy_on_write import CopyOnWrite
from tinyllm.kv_cache.prefix_cache import PrefixCache

NUM_BLOCKS, BLOCK_SIZE = 16, 4


@figure
def interactive_allocator() -> Figure:
    """A pool with a request, its fork, and two cached blocks."""
    allocator = BlockAllocator(NUM_BLOCKS)
    cache = PrefixCache(allocator, BLOCK_SIZE)
    contents: dict[int, list[str]] = {block: [""] * BLOCK_SIZE for block in range(NUM_BLOCKS)}

    def copy(source: int, target: int) -> None:
        contents[target] = list(contents[source])

    def append(table: BlockTable, text: str) -> None:
        for place, letter in zip(sharing.append(table, len(text)), text, strict=True):
            contents[place // BLOCK_SIZE][place % BLOCK_SIZE] = letter

    sharing = CopyOnWrite(allocator, copy)
    done = BlockTable(allocator, BLOCK_SIZE)
    append(done, "One more")
    cache.insert([ord(letter) for letter in "One more"], done.block_ids)
    done.release()
    a = BlockTable(allocator, BLOCK_SIZE)
    append(a, "Ten tokens")
    b = sharing.fork(a)
    append(b, "b")

    drawing, ax = new_diagram(28, 13.4)
    for block in range(NUM_BLOCKS):
        owners = [name for name, table in (("A", a), ("B", b)) if block in table.block_ids]
        who = " ".join(owners + ["cache"] * (block in cache.blocks.values()))
        draw_block(ax, block, contents[block] if who else [""] * BLOCK_SIZE, who, allocator.ref_count(block))
    label(ax, 0.6, 1.3, f"A: block_table {a.block_ids}, {a.num_tokens} tokens", ha="left", size=9)
    label(ax, 14.4, 1.3, f"B: block_table {b.block_ids}, {b.num_tokens} tokens", ha="left", size=9)
    return drawing


def draw_block(ax: Axes, block: int, letters: list[str], who: str, count: int) -> None:
    """One block with its number, its slots, and its owners."""
    x, y = 0.8 + 6.9 * (block % 4), 11.4 - 2.7 * (block // 4)
    color = C1 if who.startswith("A") else C2 if who.startswith("B") else MUTED if who else None
    label(ax, x + 0.3, y + 0.5, f"{block}", size=9)
    for place, letter in enumerate(letters):
        slot(ax, x + 1.1 + place, y, letter, color if letter else None)
    frame(ax, x + 1.1, y, BLOCK_SIZE, color=FG if count > 1 else color or MUTED)
    label(ax, x + 3.1, y - 0.5, f"{who} · {count} refs" if count > 1 else who or "free", size=8)


@figure
def interactive_merge() -> Figure:
    """Eight scores cut after the fifth, the state of each part, and both merged."""
    scores = torch.tensor([1, 2.5, 0, 3, 1.5, -1, 4, 2], dtype=torch.float64)
    values = torch.tensor([2, -1, 0.5, 3, -2, 1, 4, -0.5], dtype=torch.float64)
    split = 5
    drawing, ax = new_diagram(28, 15.5)
    label(ax, 0.4, 14, "score", ha="left", size=9)
    label(ax, 0.4, 12.4, "value", ha="left", size=9)
    for position in range(len(scores)):
        x, color = 3.6 + 2.9 * position + (0.5 if position >= split else 0), C1 if position < split else C2
        box(ax, x, 13.4, 2.5, 1.2, f"{scores[position]:g}", color=color, filled=True, size=9)
        label(ax, x + 1.25, 12.4, f"{values[position]:g}", size=9)
    states = []
    for place, part, color, name in ((0, slice(0, split), C1, "left"), (1, slice(split, None), C2, "right")):
        lse, weights = torch.logsumexp(scores[part], 0), torch.softmax(scores[part], 0)
        out = (weights * values[part]).sum()
        states += [out[None], lse]
        top = scores[part].max()
        total = (scores[part] - top).exp().sum()
        text = f"{name}: m = {top:g}, l = {total:.3f}\noutput o = {out:.3f}"
        box(ax, 1.5 + 14 * place, 7.6, 11.5, 3, text, color=color, filled=True, size=9)
        arrow(ax, (7.25 + 14 * place, 7.6), (11 + 6 * place, 5.4))
        arrow(ax, (9.5 + 14 * place - place, 11.8), (7.25 + 14 * place, 10.7))
    out, lse = merge_attention_states(*states)
    total = (lse - scores.max()).exp()
    text = f"merged: m = {scores.max():g}, l = {total:.3f}, output o = {out[0]:.3f}\nthe softmax over all eight"
    box(ax, 4.5, 2, 19, 3.3, text, bold=True, size=9)
    return drawing
