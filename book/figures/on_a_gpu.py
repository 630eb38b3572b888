"""Results: the kernels and the CUDA graphs on a GPU, as committed."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from book.figures.measured import result
from book.figures.style import C1, C2, C3, C4, FG, figure, new_figure, tinted_bars, value_beside

#: Kernel of a prefill -> its name in the picture, color and hatch; flashinfer where it was there.
PREFILL = {
    "paged_prefill": ("paged_prefill", C1, ""),
    "scaled_dot_product_attention": ("SDPA", C2, "//"),
    "flex_attention": ("FlexAttention", C3, ".."),
    "flashinfer": ("FlashInfer", C4, "xx"),
}


def decode_rows() -> dict[str, dict[str, Any]]:
    """The decode batches of the study by what they are called in the picture."""
    kernels = result("kernels")
    count, shortest, longest = kernels["settings"]["batch"]
    rows = {f"{count} of {shortest // 1024}K to {longest // 1024}K": kernels["decode_batch"]}
    for name, row in kernels["decode_long_context"].items():
        number, length = name.split(" x ")
        rows[f"{number} of {int(length) // 1024}K"] = row
    return rows


def best_split(row: dict[str, Any]) -> float:
    """The share of the copy's bandwidth with the best of the measured split sizes."""
    return max(kernel["share_of_copy"] for name, kernel in row["kernels"].items() if "split" in name)


@figure
def decode_bandwidth() -> Figure:
    """Bytes of K and V a second, in per cent of a copy's, for several batches: one program a context, or split."""
    drawing, ax = new_figure(3.2)
    rows = decode_rows()
    for y, row in enumerate(rows.values()):
        whole, split = row["kernels"]["paged_decode"]["share_of_copy"], best_split(row)
        for shift, share, color, hatch in ((-0.2, whole, C2, "//"), (0.2, split, C1, "")):
            tinted_bars(ax.barh, y + shift, 100 * share, 0.36, color=color, hatch=hatch)
            value_beside(ax, 100 * share, y + shift, f"{100 * share:.0f}")
    ax.axvline(100, color=FG, linewidth=1)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.invert_yaxis()
    ax.set_xlim(0, 112)
    ax.set_xlabel("bandwidth, % of a plain copy's")
    ax.plot([], [], "s", color=C2, label="paged_decode")
    ax.plot([], [], "s", color=C1, label="paged_decode_split, best split size")
    drawing.legend(loc="outside upper center", ncols=2)
    return drawing


@figure
def prefill_rate() -> Figure:
    """Operations a second of prefill: this course's kernel over pages, others over K and V in one piece."""
    studies = result("kernels")["prefill"]
    drawing, ax = new_figure(3.6)
    shown = [name for name in PREFILL if any(name in study["kernels"] for study in studies.values())]
    height = 0.8 / len(shown)
    for y, study in enumerate(studies.values()):
        present = [name for name in shown if name in study["kernels"]]
        for i, name in enumerate(present):
            _, color, hatch = PREFILL[name]
            rate = study["kernels"][name]["operations_per_second"] / 1e12
            at = y + height * (i - (len(present) - 1) / 2)
            tinted_bars(ax.barh, at, rate, 0.9 * height, color=color, hatch=hatch)
            value_beside(ax, rate, at, f"{rate:.0f}")
    texts = [" new of ".join(f"{int(number):,}" for number in name.split(" of ")) for name in studies]
    ax.set_yticks(range(len(studies)), texts)
    ax.invert_yaxis()
    ax.set_xlabel("operations per second, in units of 10$^{12}$")
    ax.margins(x=0.1)
    for name in shown:
        text, color, _ = PREFILL[name]
        ax.plot([], [], "s", color=color, label=text)
    drawing.legend(loc="outside upper center", ncols=len(shown))
    return drawing


@figure
def decode_step_graphs() -> Figure:
    """The time of a decode step of the shipped target, eager and replayed from a CUDA graph, for four batch sizes."""
    rows = result("decode_graphs")["decode_steps"]
    drawing, ax = new_figure(2.6)
    for x, row in enumerate(rows.values()):
        for shift, mode, color, hatch in ((-0.2, "eager", C2, "//"), (0.2, "graphs", C1, "")):
            time = row[mode]["step_milliseconds"]
            bars = tinted_bars(ax.bar, x + shift, time, 0.36, color=color, hatch=hatch)
            ax.bar_label(bars, [f"{time:.1f}"], padding=2, fontsize=8.5)
    ax.set_xticks(range(len(rows)), list(rows))
    ax.set_xlabel("sequences that decode together")
    ax.set_ylabel("ms a step")
    ax.margins(y=0.15)
    ax.plot([], [], "s", color=C2, label="launched from Python")
    ax.plot([], [], "s", color=C1, label="replayed from a CUDA graph")
    drawing.legend(loc="outside upper center", ncols=2)
    return drawing
