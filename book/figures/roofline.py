"""Day 2: the roofline of a GPU, by calculation from its published peaks, beside that of the CPU that was measured."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.shapes import QWEN3_0_6B
from book.figures.measured import result
from book.figures.style import C1, C2, C5, figure, new_figure

#: Published peaks of an NVIDIA H100 SXM: dense bfloat16 products, and memory.
H100_FLOPS, H100_BYTES = 989e12, 3.35e12
CHUNK, CONTEXT = 512, 4096


def prefill_intensity() -> float:
    """Operations a byte of attention in one layer: a chunk of 512 at the end of 4,096 tokens, K and V read once."""
    heads, kv_heads, dim, size = QWEN3_0_6B.num_heads, QWEN3_0_6B.num_kv_heads, QWEN3_0_6B.head_dim, 2
    pairs = CHUNK * (CONTEXT - CHUNK) + CHUNK * (CHUNK + 1) // 2
    moved = (2 * CONTEXT * kv_heads + 2 * CHUNK * heads) * dim * size
    return 4 * heads * dim * pairs / moved


@figure
def roofline() -> Figure:
    """The most that a GPU and a CPU can do at each number of operations a byte, and where the steps' parts stand."""
    drawing, ax = new_figure(4.0)
    floor = result("throughput")["profile"]["floor"]
    roofs = (
        ("H100, published peaks", H100_FLOPS, H100_BYTES, C1, "-"),
        ("2 CPU cores, measured", floor["matmul_flops_per_second"], floor["copy_bytes_per_second"], C5, "--"),
    )
    for name, flops, moved, color, style in roofs:
        xs = (0.5, flops / moved, 4096)
        ax.plot(xs, [min(flops, x * moved) for x in xs], style, color=color, linewidth=1.8, label=name)
    points = (
        ("decode attention\n(GQA ratio 2)", QWEN3_0_6B.gqa_ratio, "o", (9, -12), "left"),
        ("matrices, T = 1", 1, "s", (9, -12), "left"),
        ("matrices, T = 64", 64, "s", (9, -9), "left"),
        ("matrices, T = 512", 512, "s", (0, 9), "center"),
        ("prefill attention\n(chunk of 512)", prefill_intensity(), "D", (4, -22), "left"),
    )
    for name, intensity, marker, offset, side in points:
        y = min(H100_FLOPS, intensity * H100_BYTES)
        ax.plot([intensity], [y], marker, color=C2, markersize=6)
        ax.annotate(name, (intensity, y), offset, textcoords="offset points", ha=side, fontsize=8.5)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_ylim(1e10, 4e15)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y / 1e12:g}"))
    ax.set_xlabel("operations for each byte that is read")
    ax.set_ylabel("Tera-operations/s, at most")
    ax.grid(True, alpha=0.4)
    ax.legend(loc="lower right")
    return drawing
